SELECT id FROM lake.market.trades t WHERE id < 1000 AND NOT EXISTS (SELECT 1 FROM lake.market.trades o WHERE o.id = t.id + 1)
