SELECT id, CAST(price AS DECIMAL(18, 4)) AS p FROM lake.market.trades WHERE price IS NOT NULL AND id < 1000
