// Enqueue a dibs job with nothing but amqp091-go.
//
//	./enqueue_job default tasks.resize '"a.png"' 200
//
// The arguments are the queue, the task's name and the task's arguments as JSON. The queue is there once a dibs
// worker or producer has used it.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func failOnError(err error, msg string) {
	if err != nil {
		log.Fatalf("%s: %s", msg, err)
	}
}

func main() {
	url := os.Getenv("AMQP_URL")
	if url == "" {
		url = "amqp://guest:guest@localhost:5672/"
	}
	queue, task := os.Args[1], os.Args[2]
	args := []json.RawMessage{}
	for _, arg := range os.Args[3:] {
		args = append(args, json.RawMessage(arg))
	}
	body, err := json.Marshal(map[string]any{"args": args, "kwargs": map[string]any{}})
	failOnError(err, "Not JSON")
	id := make([]byte, 16)
	_, err = rand.Read(id)
	failOnError(err, "No random numbers")

	conn, err := amqp.Dial(url)
	failOnError(err, "Failed to connect to RabbitMQ")
	defer conn.Close()
	ch, err := conn.Channel()
	failOnError(err, "Failed to open a channel")
	failOnError(ch.Confirm(false), "Failed to ask for confirms")
	returns := ch.NotifyReturn(make(chan amqp.Return, 1))
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation, 1))

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err = ch.PublishWithContext(ctx, "", queue, true, false, amqp.Publishing{
		Type:         task,
		MessageId:    fmt.Sprintf("%x", id),
		ContentType:  "application/json",
		DeliveryMode: amqp.Persistent,
		Body:         body,
	})
	failOnError(err, "Failed to publish")

	// An unroutable message comes back before its confirm.
	if confirm := <-confirms; !confirm.Ack {
		log.Fatal("The server refused the job")
	}
	select {
	case <-returns:
		log.Fatalf("There is no queue %s", queue)
	default:
	}
}
