// Sends what happened to one access request to Kafka, with the CloudEvents SDK: one event binary, one structured.
//
//	KAFKA_BROKERS=broker-1.example.com:9093 KAFKA_TOPIC=athenz-events KAFKA_USER=… KAFKA_PASSWORD=… KAFKA_CA=ca.pem \
//		go run ./kafka-sdk 4711 user.joe
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log"
	"maps"
	"os"
	"strings"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding/spec"
	"github.com/cloudevents/sdk-go/v2/types"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

const source = "access-desk/go-kafka-sdk"

type object = map[string]any

func main() {
	request, member := os.Args[1], os.Args[2]
	asked := object{
		"domain":     "sports",
		"collection": object{"kind": "role", "name": "writers"},
		"member":     member,
		"change":     "add",
		"requester":  member,
	}
	// The id names what happened, so it is the same when this runs again.
	requested := event(request+"-requested", "io.athenz.membership.requested.v1",
		with(asked, object{"recipients": []string{"user.alice"}}))
	decided := event(request+"-decided", "io.athenz.membership.decided.v1",
		with(asked, object{"decision": "approve", "actor": "user.alice", "recipients": []string{member}}))

	// The key keeps the events of one domain in order: same key, same partition.
	records := []*kgo.Record{binary(requested), structured(decided)}
	for _, record := range records {
		record.Key = []byte("sports")
	}

	client := connect()
	defer client.Close()
	// Waits for both; an event is there when its delivery has no error.
	check(client.ProduceSync(context.Background(), records...).FirstErr())
}

func event(id, kind string, data object) cloudevents.Event {
	event := cloudevents.NewEvent()
	event.SetID(id)
	event.SetSource(source)
	event.SetType(kind)
	event.SetTime(time.Now())
	check(event.SetData(cloudevents.ApplicationJSON, data))
	check(event.Validate())
	return event
}

// The value is the whole event, and the header content-type says so.
func structured(event cloudevents.Event) *kgo.Record {
	value, err := json.Marshal(event)
	check(err)
	header := kgo.RecordHeader{Key: "content-type", Value: []byte(cloudevents.ApplicationCloudEventsJSON)}
	return &kgo.Record{Headers: []kgo.RecordHeader{header}, Value: value}
}

// Attributes are headers, the value is the data alone. The SDK's own writer is for sarama
// (github.com/cloudevents/sdk-go/protocol/kafka_sarama/v2); this is the same for any other client.
func binary(event cloudevents.Event) *kgo.Record {
	record := &kgo.Record{Value: event.Data()}
	add := func(name string, value any) {
		text, err := types.Format(value)
		check(err)
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: name, Value: []byte(text)})
	}
	for _, attribute := range spec.WithPrefix("ce_").Version(event.SpecVersion()).Attributes() {
		value := attribute.Get(event.Context)
		if value == nil {
			continue
		}
		if attribute.Kind() == spec.DataContentType {
			add("content-type", value)
		} else {
			add(attribute.PrefixedName(), value)
		}
	}
	for name, value := range event.Extensions() {
		add("ce_"+name, value)
	}
	return record
}

// franz-go is idempotent by itself and waits for every replica in sync, which acks=all means.
func connect() *kgo.Client {
	ca, err := os.ReadFile(os.Getenv("KAFKA_CA"))
	check(err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		log.Fatal("KAFKA_CA holds no certificate")
	}
	user := scram.Auth{User: os.Getenv("KAFKA_USER"), Pass: os.Getenv("KAFKA_PASSWORD")}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(os.Getenv("KAFKA_BROKERS"), ",")...),
		kgo.DefaultProduceTopic(os.Getenv("KAFKA_TOPIC")),
		kgo.DialTLSConfig(&tls.Config{RootCAs: roots}),
		kgo.SASL(user.AsSha512Mechanism()),
		// How long a record is tried before its delivery is reported as failed.
		kgo.RecordDeliveryTimeout(2*time.Minute),
	)
	check(err)
	return client
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func with(data, more object) object {
	all := maps.Clone(data)
	maps.Copy(all, more)
	return all
}
