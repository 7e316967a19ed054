// Sends what happened to one access request to owlpost over HTTP, with the CloudEvents SDK: structured, binary, batch.
//
//	OWLPOST_URL=https://owlpost.example.com OWLPOST_TOKEN=… go run ./http-sdk 4711 user.joe
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"os"
	"strconv"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

const source = "access-desk/go-http-sdk"

var client = &http.Client{Timeout: 30 * time.Second}

type object = map[string]any

func main() {
	request, member := os.Args[1], os.Args[2]
	writers := object{"domain": "sports", "collection": object{"kind": "role", "name": "writers"}, "member": member}
	asked := with(writers, object{"change": "add", "requester": member})

	// The id names what happened, so it is the same when this runs again.
	requested := event(request+"-requested", "io.athenz.membership.requested.v1",
		with(asked, object{"recipients": []string{"user.alice"}}))
	decided := event(request+"-decided", "io.athenz.membership.decided.v1",
		with(asked, object{"decision": "approve", "actor": "user.alice", "recipients": []string{member}}))
	added := event(request+"-added", "io.athenz.membership.added.v1",
		with(writers, object{"recipients": []string{member}}))
	oncall := event(request+"-oncall", "com.example.oncall.started.v1",
		object{"team": "sports", "recipients": []string{member}})

	url, ctx := os.Getenv("OWLPOST_URL")+"/v1/events", context.Background()
	structured, err := cehttp.NewHTTPRequestFromEvent(binding.WithForceStructured(ctx), url, requested)
	check(err)
	check(post(structured))
	binary, err := cehttp.NewHTTPRequestFromEvent(binding.WithForceBinary(ctx), url, decided)
	check(err)
	check(post(binary))
	// Up to 10,000 events and 8 MiB.
	batch, err := cehttp.NewHTTPRequestFromEvents(ctx, url, []cloudevents.Event{added, oncall})
	check(err)
	check(post(batch))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func event(id, kind string, data object) cloudevents.Event {
	event := cloudevents.NewEvent()
	event.SetID(id)
	event.SetSource(source)
	event.SetType(kind)
	event.SetTime(time.Now())
	check(event.SetData(cloudevents.ApplicationJSON, data))
	return event
}

func with(data, more object) object {
	all := maps.Clone(data)
	maps.Copy(all, more)
	return all
}

func post(request *http.Request) error {
	status, answer, err := send(request)
	if err != nil {
		return err
	}
	if status != http.StatusAccepted { // 400, 401, 413, 415
		return fmt.Errorf("owlpost refused the request: %d %s", status, answer)
	}
	var counts struct{ Rejected []json.RawMessage }
	if err := json.Unmarshal(answer, &counts); err != nil {
		return err
	}
	if len(counts.Rejected) > 0 { // the others of the batch are stored
		return fmt.Errorf("owlpost refused events: %s", counts.Rejected)
	}
	return nil
}

// Eight attempts at most, as far apart as Retry-After says; repeating is safe, since the ids stay. The SDK's own client
// (cloudevents.NewClientHTTP) repeats too, but does not look at Retry-After.
func send(request *http.Request) (status int, answer []byte, err error) {
	request.Header.Set("Authorization", "Bearer "+os.Getenv("OWLPOST_TOKEN"))
	for attempt := 1; ; attempt++ {
		wait := min(time.Second<<attempt, time.Minute)
		response, err := client.Do(request)
		if err == nil {
			answer, err = io.ReadAll(response.Body)
			response.Body.Close()
		}
		if err == nil {
			switch response.StatusCode {
			// May go better the next time. Any other answer would be the same again.
			case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusBadGateway,
				http.StatusServiceUnavailable, http.StatusGatewayTimeout:
				if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil {
					wait = time.Duration(seconds) * time.Second
				}
			default:
				return response.StatusCode, answer, nil
			}
			err = fmt.Errorf("owlpost answered %s", response.Status)
		}
		if attempt == 8 {
			return 0, nil, err
		}
		time.Sleep(wait)
		if request.Body, err = request.GetBody(); err != nil {
			return 0, nil, err
		}
	}
}
