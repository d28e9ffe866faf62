SELECT event_type, count(DISTINCT symbol) AS symbols FROM lake.market.trades GROUP BY event_type
