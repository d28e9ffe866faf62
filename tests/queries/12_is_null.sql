SELECT count(*) AS n FROM lake.market.trades WHERE price IS NULL AND bid IS NOT NULL
