SELECT a.id, b.qty FROM lake.market.trades a LEFT JOIN (SELECT id, qty FROM lake.market.trades WHERE qty > 500) b ON a.id = b.id WHERE a.id < 500
