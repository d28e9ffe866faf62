-- firn:
SELECT order_id, customer['name'] AS name, customer['email'] AS email, customer['address']['city'] AS city, customer['address']['zip'] AS zip FROM lake.market.orders
-- trino:
SELECT order_id, customer.name AS name, customer.email AS email, customer.address.city AS city, customer.address.zip AS zip FROM lake.market.orders
