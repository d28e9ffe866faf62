SELECT DISTINCT venue, event_type FROM lake.market.trades
