SELECT symbol, sum(CASE WHEN event_type = 'TRADE' THEN qty ELSE CAST(0 AS BIGINT) END) AS traded FROM lake.market.trades GROUP BY symbol
