SELECT id, qty / 7 AS q, qty % 7 AS r, -qty AS n, abs(qty - 100) AS d FROM lake.market.trades WHERE id < 500
