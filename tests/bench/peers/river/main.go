// River beside the PostgreSQL store: takes in jobs with a key each, all once more, and runs each once.
//
//	river URL COUNT    prints {"taken":S,"again":S,"ran":S}, in seconds
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

const (
	batch   = 1_000
	takers  = 2
	patient = 10 * time.Minute
)

// Job is one piece of work: in every state, finished ones too, a second one with its key is no new job.
type Job struct {
	Key string `json:"key" river:"unique"`
}

func (Job) Kind() string { return "job" }

func (Job) InsertOpts() river.InsertOpts {
	return river.InsertOpts{UniqueOpts: river.UniqueOpts{ByArgs: true}}
}

// Worker does nothing, and counts.
type Worker struct {
	river.WorkerDefaults[Job]
	ran  atomic.Int64
	left chan struct{}
	all  int64
}

func (w *Worker) Work(context.Context, *river.Job[Job]) error {
	if w.ran.Add(1) == w.all {
		close(w.left)
	}
	return nil
}

func main() {
	if err := measure(); err != nil {
		fmt.Fprintln(os.Stderr, "river:", err)
		os.Exit(1)
	}
}

func measure() error {
	if len(os.Args) != 3 {
		return fmt.Errorf("usage: river URL COUNT")
	}
	count, err := strconv.Atoi(os.Args[2])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	pool, err := pgxpool.New(ctx, os.Args[1])
	if err != nil {
		return err
	}
	defer pool.Close()
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		return err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return err
	}
	worker := &Worker{left: make(chan struct{}), all: int64(count)}
	workers := river.NewWorkers()
	river.AddWorker(workers, worker)
	// As River's own benchmark sets it.
	client, err := river.NewClient(driver, &river.Config{
		FetchCooldown:     2 * time.Millisecond,
		FetchPollInterval: 20 * time.Millisecond,
		Logger:            slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 2_000}},
		Workers:           workers,
	})
	if err != nil {
		return err
	}
	taken, err := timed(func() error { return takeIn(ctx, client, count, count) })
	if err != nil {
		return err
	}
	again, err := timed(func() error { return takeIn(ctx, client, count, 0) })
	if err != nil {
		return err
	}
	ran, err := timed(func() error {
		if err := client.Start(ctx); err != nil {
			return err
		}
		select {
		case <-worker.left:
		case <-ctx.Done():
			return ctx.Err()
		}
		// What has run is written down when this returns.
		return client.Stop(ctx)
	})
	if err != nil {
		return err
	}
	var completed int
	if err := pool.QueryRow(ctx, "SELECT count(*) FROM river_job WHERE state = 'completed'").Scan(&completed); err != nil {
		return err
	}
	if ran := worker.ran.Load(); completed != count || ran != int64(count) {
		return fmt.Errorf("%d jobs ran and %d are completed of %d", ran, completed, count)
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]float64{"taken": taken, "again": again, "ran": ran})
}

// takeIn inserts the jobs in batches, each its own transaction; wants so many of them to be new.
func takeIn(ctx context.Context, client *river.Client[pgx.Tx], count, wanted int) error {
	var (
		next, fresh atomic.Int64
		group       sync.WaitGroup
		failed      = make(chan error, takers)
	)
	for range takers {
		group.Go(func() {
			for {
				first := int(next.Add(batch)) - batch
				if first >= count {
					return
				}
				jobs := make([]river.InsertManyParams, 0, batch)
				for n := first; n < min(first+batch, count); n++ {
					jobs = append(jobs, river.InsertManyParams{Args: Job{Key: fmt.Sprintf("job-%d", n)}})
				}
				results, err := client.InsertMany(ctx, jobs)
				if err != nil {
					failed <- err
					return
				}
				for _, result := range results {
					if !result.UniqueSkippedAsDuplicate {
						fresh.Add(1)
					}
				}
			}
		})
	}
	group.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	if got := fresh.Load(); got != int64(wanted) {
		return fmt.Errorf("%d jobs are new, not %d", got, wanted)
	}
	return nil
}

func timed(work func() error) (float64, error) {
	began := time.Now()
	err := work()
	return time.Since(began).Seconds(), err
}
