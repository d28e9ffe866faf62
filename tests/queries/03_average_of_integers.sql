SELECT venue, avg(qty) AS mean FROM lake.market.trades WHERE qty IS NOT NULL GROUP BY venue
