// Sends what happened to one access request to Kafka, with franz-go: one event binary, one structured.
//
//	KAFKA_BROKERS=broker-1.example.com:9093 KAFKA_TOPIC=athenz-events KAFKA_USER=… KAFKA_PASSWORD=… KAFKA_CA=ca.pem \
//		go run ./kafka-plain 4711 user.joe
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

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

const source = "access-desk/go-kafka-plain"

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
	now := time.Now().UTC().Format(time.RFC3339Nano)
	// The key keeps the events of one domain in order: same key, same partition.
	key := []byte("sports")

	// Binary: attributes are headers, the value is the data alone.
	// The id names what happened, so it is the same when this runs again.
	requested := &kgo.Record{
		Key: key,
		Headers: []kgo.RecordHeader{
			{Key: "ce_specversion", Value: []byte("1.0")},
			{Key: "ce_id", Value: []byte(request + "-requested")},
			{Key: "ce_source", Value: []byte(source)},
			{Key: "ce_type", Value: []byte("io.athenz.membership.requested.v1")},
			{Key: "ce_time", Value: []byte(now)},
			{Key: "content-type", Value: []byte("application/json")},
		},
		Value: encode(with(asked, object{"recipients": []string{"user.alice"}})),
	}
	// Structured: the value is the whole event, and the header content-type says so.
	decided := &kgo.Record{
		Key:     key,
		Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/cloudevents+json; charset=UTF-8")}},
		Value: encode(object{
			"specversion": "1.0",
			"id":          request + "-decided",
			"source":      source,
			"type":        "io.athenz.membership.decided.v1",
			"time":        now,
			"data":        with(asked, object{"decision": "approve", "actor": "user.alice", "recipients": []string{member}}),
		}),
	}

	client := connect()
	defer client.Close()
	// Waits for both; an event is there when its delivery has no error.
	if err := client.ProduceSync(context.Background(), requested, decided).FirstErr(); err != nil {
		log.Fatal(err)
	}
}

// franz-go is idempotent by itself and waits for every replica in sync, which acks=all means.
func connect() *kgo.Client {
	ca, err := os.ReadFile(os.Getenv("KAFKA_CA"))
	if err != nil {
		log.Fatal(err)
	}
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
	if err != nil {
		log.Fatal(err)
	}
	return client
}

func encode(value any) []byte {
	content, err := json.Marshal(value)
	if err != nil {
		log.Fatal(err)
	}
	return content
}

func with(data, more object) object {
	all := maps.Clone(data)
	maps.Copy(all, more)
	return all
}
