SELECT count(*) AS n FROM lake.market.trades
