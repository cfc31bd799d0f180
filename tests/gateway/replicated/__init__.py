"""The API's own tests again, by two gateways behind nginx that share PostgreSQL and Redis."""
