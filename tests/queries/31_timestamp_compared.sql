-- firn:
SELECT count(*) AS n FROM lake.market.trades WHERE ts >= TIMESTAMP '2026-01-01T00:00:00Z' AND ts < TIMESTAMP '2030-01-01T00:00:00Z'
-- trino:
SELECT count(*) AS n FROM lake.market.trades WHERE ts >= TIMESTAMP '2026-01-01 00:00:00 UTC' AND ts < TIMESTAMP '2030-01-01 00:00:00 UTC'
