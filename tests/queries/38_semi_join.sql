SELECT id FROM lake.market.trades t WHERE id < 1000 AND EXISTS (SELECT 1 FROM lake.market.trades o WHERE o.symbol = t.symbol AND o.event_type = 'TRADE' AND o.id <> t.id)
