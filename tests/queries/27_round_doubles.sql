SELECT id, floor(price) AS f, ceil(price) AS c FROM lake.market.trades WHERE price IS NOT NULL AND id < 1000
