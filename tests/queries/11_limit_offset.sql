-- ordered
-- firn:
SELECT id FROM lake.market.trades ORDER BY id LIMIT 25 OFFSET 75
-- trino:
SELECT id FROM lake.market.trades ORDER BY id OFFSET 75 LIMIT 25
