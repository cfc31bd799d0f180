"""The log: an ordered, durable, partitioned list of records. Kafka, or its twin in the gateway's database."""
