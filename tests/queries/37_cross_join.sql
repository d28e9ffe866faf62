SELECT a.venue, b.event_type FROM (SELECT DISTINCT venue FROM lake.market.trades) a CROSS JOIN (SELECT DISTINCT event_type FROM lake.market.trades) b
