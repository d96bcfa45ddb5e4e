"""What candles look like and when a period of them is to be trusted. Knows no network, no files, no Dagster."""
