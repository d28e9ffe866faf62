SELECT venue, event_type, max(id) AS newest FROM lake.market.trades GROUP BY ROLLUP (venue, event_type)
