SELECT id, qty FROM lake.market.trades WHERE qty = (SELECT max(qty) FROM lake.market.trades)
