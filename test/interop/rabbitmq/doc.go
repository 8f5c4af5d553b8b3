// Package rabbitmq sends notifications to a real RabbitMQ and reads them with
// oslo.messaging, as telemetry and billing do.
package rabbitmq
