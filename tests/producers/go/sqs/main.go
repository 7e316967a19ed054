// Sends what happened to one access request to an SQS queue, with the AWS SDK and the CloudEvents SDK. Region and
// credentials come as for every AWS tool.
//
//	SQS_QUEUE_URL=https://sqs.eu-west-1.amazonaws.com/111122223333/owlpost-events go run ./sqs 4711 user.joe
package main

import (
	"context"
	"encoding/json"
	"log"
	"maps"
	"os"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	cloudevents "github.com/cloudevents/sdk-go/v2"
)

const source = "access-desk/go-sqs"

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
	events := []cloudevents.Event{
		event(request+"-requested", "io.athenz.membership.requested.v1",
			with(asked, object{"recipients": []string{"user.alice"}})),
		event(request+"-decided", "io.athenz.membership.decided.v1",
			with(asked, object{"decision": "approve", "actor": "user.alice", "recipients": []string{member}})),
	}
	// The body of each message is a structured event; up to 10 messages a call. A FIFO queue wants besides, of each,
	// MessageGroupId (such as the domain) and MessageDeduplicationId (such as source and id).
	entries := make([]types.SendMessageBatchRequestEntry, 0, len(events))
	for n, event := range events {
		body, err := json.Marshal(event)
		check(err)
		entries = append(entries, types.SendMessageBatchRequestEntry{
			Id:          aws.String(strconv.Itoa(n)),
			MessageBody: aws.String(string(body)),
		})
	}

	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	// Throttling, 5xx and lost connections are repeated by the client.
	settings, err := config.LoadDefaultConfig(ctx, config.WithRetryMaxAttempts(8))
	check(err)
	answer, err := sqs.NewFromConfig(settings).SendMessageBatch(ctx, &sqs.SendMessageBatchInput{
		QueueUrl: aws.String(os.Getenv("SQS_QUEUE_URL")),
		Entries:  entries,
	})
	check(err)
	// The call succeeds although single messages of it failed.
	for _, failed := range answer.Failed {
		log.Fatalf("SQS did not take %s: %s", *failed.Id, aws.ToString(failed.Message))
	}
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
