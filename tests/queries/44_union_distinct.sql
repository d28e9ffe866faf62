SELECT symbol AS name FROM lake.market.trades UNION SELECT venue AS name FROM lake.market.trades
