SELECT symbol FROM lake.market.trades WHERE event_type = 'TRADE' INTERSECT SELECT symbol FROM lake.market.trades WHERE event_type = 'QUOTE'
