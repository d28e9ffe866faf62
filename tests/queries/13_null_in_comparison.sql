SELECT count(*) AS n FROM lake.market.trades WHERE NOT (qty > 100)
