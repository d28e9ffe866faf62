SELECT a.id AS a, b.id AS b FROM (SELECT id FROM lake.market.trades WHERE id < 60) a FULL JOIN (SELECT id FROM lake.market.trades WHERE id BETWEEN 40 AND 100) b ON a.id = b.id
