-- ordered
SELECT id, price FROM lake.market.trades WHERE id < 300 ORDER BY price DESC NULLS FIRST, id
