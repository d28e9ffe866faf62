SELECT date_trunc('hour', ts) AS hour, count(*) AS n FROM lake.market.trades GROUP BY date_trunc('hour', ts)
