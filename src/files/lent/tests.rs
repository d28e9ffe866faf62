use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn grants(number: usize, life_ms: i64) -> Grants {
    let (key, end) = (format!("key{number}"), (now_ms() + life_ms).to_string());
    Grants {
        config: properties(&[("s3.access-key-id", &key), ("s3.session-token-expires-at-ms", &end)]),
        by_prefix: Vec::new(),
    }
}

/// Lends for so long, unless it is down; counts how often it was asked.
#[derive(Clone, Default)]
struct Catalog {
    asked: Arc<AtomicUsize>,
    down: Arc<std::sync::atomic::AtomicBool>,
}

#[async_trait]
impl Lender for Catalog {
    async fn lend(&self) -> Result<Grants> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
        if self.down.load(Ordering::SeqCst) {
            return Err(Error::Unreachable("the catalog is down".into()));
        }
        Ok(grants(number, 3_600_000))
    }
}

async fn key(lent: &Lent) -> String {
    lent.current().await.unwrap().config["s3.access-key-id"].clone()
}

#[test]
fn the_longest_prefix_wins() {
    let of = |key: &str| properties(&[("s3.access-key-id", key)]);
    let grants = Grants {
        config: properties(&[("s3.region", "r"), ("s3.access-key-id", "all")]),
        by_prefix: vec![
            ("s3://b/".into(), of("bucket")),
            ("s3://b/w/t".into(), of("table")),
            ("s3://b/w".into(), of("w")),
        ],
    };
    for (location, wanted, prefix) in [
        ("s3://b/w/t/x", "table", "s3://b/w/t"),
        ("s3://b/w/s", "w", "s3://b/w"),
        ("s3://b/x", "bucket", "s3://b/"),
        ("s3://other/x", "all", ""),
    ] {
        let found = grants.properties(location);
        assert_eq!((found["s3.access-key-id"].as_str(), found["s3.region"].as_str()), (wanted, "r"), "{location}");
        assert_eq!(grants.prefix(location), prefix, "{location}");
        assert_eq!(grants.properties(prefix)["s3.access-key-id"], wanted, "a prefix finds what its locations find");
    }
    assert!(!format!("{grants:?}").contains("table\""), "no secret is printed");
}

#[tokio::test]
async fn a_loan_is_renewed_before_it_expires_and_once_for_all_who_wait() {
    let catalog = Catalog::default();
    let lent = Arc::new(Lent::new(grants(0, 3_600_000), Box::new(catalog.clone())));
    assert_eq!(key(&lent).await, "key0", "an hour is left");
    assert_eq!(catalog.asked.load(Ordering::SeqCst), 0);

    // Less than the margin is left.
    lent.take(grants(0, 100));
    tokio::time::sleep(Duration::from_millis(90)).await;
    let all = futures::future::join_all((0..8).map(|_| key(&lent))).await;
    assert!(all.iter().all(|key| key == "key1"), "{all:?}");
    assert_eq!(catalog.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_old_loan_serves_while_the_catalog_is_down_and_no_longer() {
    let catalog = Catalog::default();
    catalog.down.store(true, Ordering::SeqCst);
    let lent = Lent::new(grants(0, 800), Box::new(catalog.clone()));
    tokio::time::sleep(Duration::from_millis(620)).await;
    assert_eq!(key(&lent).await, "key0");
    assert_eq!(key(&lent).await, "key0");
    assert_eq!(catalog.asked.load(Ordering::SeqCst), 1, "it is not asked by every request");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let error = lent.current().await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable(m) if m.contains("have expired")), "{error}");
    catalog.down.store(false, Ordering::SeqCst);
    assert_eq!(key(&lent).await, "key3", "there is no chain that one failure ends");
}

#[tokio::test]
async fn a_loan_that_a_store_refuses_is_renewed() {
    let catalog = Catalog::default();
    let forever = Grants { config: properties(&[("s3.access-key-id", "key0")]), by_prefix: Vec::new() };
    let lent = Lent::new(forever, Box::new(catalog.clone()));
    lent.doubt();
    assert_eq!(key(&lent).await, "key0", "it has just come");
    lent.change(|held| held.received_ms -= AGAIN_MS);
    lent.doubt();
    assert_eq!(key(&lent).await, "key1");
}
