"""What talks to Binance: planning pages, spending request weight, sending, retrying. Knows no files, no Dagster."""
