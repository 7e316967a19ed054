// Sends what happened to one access request to owlpost over HTTP, with net/http: structured, binary and as a batch.
//
//	OWLPOST_URL=https://owlpost.example.com OWLPOST_TOKEN=… go run ./http-plain 4711 user.joe
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"os"
	"strconv"
	"time"
)

const source = "access-desk/go-http-plain"

var client = &http.Client{Timeout: 30 * time.Second}

type object = map[string]any

func main() {
	request, member := os.Args[1], os.Args[2]
	writers := object{"domain": "sports", "collection": object{"kind": "role", "name": "writers"}, "member": member}
	asked := with(writers, object{"change": "add", "requester": member})
	decision := with(asked, object{"decision": "approve", "actor": "user.alice", "recipients": []string{member}})

	// The id names what happened, so it is the same when this runs again.
	requested := event(request+"-requested", "io.athenz.membership.requested.v1",
		with(asked, object{"recipients": []string{"user.alice"}}))
	added := event(request+"-added", "io.athenz.membership.added.v1",
		with(writers, object{"recipients": []string{member}}))
	oncall := event(request+"-oncall", "com.example.oncall.started.v1",
		object{"team": "sports", "recipients": []string{member}})

	err := errors.Join(
		// Structured: the event is one JSON document.
		post(map[string]string{"Content-Type": "application/cloudevents+json"}, requested),
		// Binary: attributes are headers, the body is the data alone.
		post(map[string]string{
			"ce-specversion": "1.0",
			"ce-id":          request + "-decided",
			"ce-source":      source,
			"ce-type":        "io.athenz.membership.decided.v1",
			"ce-time":        time.Now().UTC().Format(time.RFC3339Nano),
			"Content-Type":   "application/json",
		}, decision),
		// Batch: several events in one request, up to 10,000 and 8 MiB.
		post(map[string]string{"Content-Type": "application/cloudevents-batch+json"}, []object{added, oncall}),
	)
	if err != nil {
		log.Fatal(err)
	}
}

func event(id, kind string, data object) object {
	now := time.Now().UTC().Format(time.RFC3339Nano)
	return object{"specversion": "1.0", "id": id, "source": source, "type": kind, "time": now, "data": data}
}

func with(data, more object) object {
	all := maps.Clone(data)
	maps.Copy(all, more)
	return all
}

func post(headers map[string]string, body any) error {
	content, err := json.Marshal(body)
	if err != nil {
		return err
	}
	status, answer, err := send(headers, content)
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

// Eight attempts at most, as far apart as Retry-After says; repeating is safe, since the ids stay.
func send(headers map[string]string, content []byte) (status int, answer []byte, err error) {
	for attempt := 1; ; attempt++ {
		wait := min(time.Second<<attempt, time.Minute)
		request, err := http.NewRequest(http.MethodPost, os.Getenv("OWLPOST_URL")+"/v1/events", bytes.NewReader(content))
		if err != nil {
			return 0, nil, err
		}
		request.Header.Set("Authorization", "Bearer "+os.Getenv("OWLPOST_TOKEN"))
		for name, value := range headers {
			request.Header.Set(name, value)
		}
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
	}
}
