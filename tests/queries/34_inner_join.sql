SELECT a.id, a.symbol, b.id AS other FROM lake.market.trades a JOIN lake.market.trades b ON a.symbol = b.symbol AND a.id < b.id WHERE a.id < 100 AND b.id < 100
