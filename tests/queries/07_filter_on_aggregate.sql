SELECT symbol, count(*) FILTER (WHERE event_type = 'TRADE') AS trades, max(qty) FILTER (WHERE qty < 500) AS small FROM lake.market.trades GROUP BY symbol
