use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response as HttpResponse;
use iceberg::spec::{NestedField, PrimitiveType, Type};

use super::super::TableName;
use super::*;

/// A server that answers what a test says and remembers what it was asked.
#[derive(Clone, Default)]
struct Server {
    seen: Arc<Mutex<Vec<String>>>,
    /// Status and body of the next answers under `/tables/`; then the table itself.
    answers: Arc<Mutex<VecDeque<(u16, String)>>>,
    tokens: Arc<AtomicUsize>,
    /// Tokens with a number below this one are refused.
    valid_from: Arc<AtomicUsize>,
    token_life_s: u64,
    token_endpoint_down: Arc<Mutex<bool>>,
}

async fn answer(State(server): State<Server>, request: Request) -> HttpResponse {
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    let (auth, tenant) = (header("authorization"), header("x-tenant"));
    let line = format!("{} {}", request.method(), request.uri());
    server.seen.lock().unwrap().push(line.clone());
    let reply = |status: u16, body: String| HttpResponse::builder().status(status).body(Body::from(body)).unwrap();
    if line.starts_with("POST /v1/oauth/tokens") {
        if *server.token_endpoint_down.lock().unwrap() {
            return reply(503, "hunter2 is what you sent".into());
        }
        let n = server.tokens.fetch_add(1, Ordering::SeqCst) + 1;
        return reply(200, format!(r#"{{"access_token":"t{n}","expires_in":{}}}"#, server.token_life_s));
    }
    let number = auth.strip_prefix("Bearer t").and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
    if number < server.valid_from.load(Ordering::SeqCst) {
        return reply(419, String::new());
    }
    if line.contains("/v1/config") {
        assert_eq!(tenant, "blue", "header.* properties are sent");
        return reply(200, r#"{"defaults":{"x":"1"},"overrides":{"prefix":"ws/one"}}"#.into());
    }
    let next = server.answers.lock().unwrap().pop_front();
    let (status, body) = next.unwrap_or_else(|| (200, table_json()));
    reply(status, body)
}

fn metadata() -> TableMetadata {
    let schema = Schema::builder()
        .with_fields([NestedField::optional(1, "n", Type::Primitive(PrimitiveType::Long)).into()])
        .build()
        .unwrap();
    let spec = UnboundPartitionSpec::builder().build();
    let builder = iceberg::spec::TableMetadataBuilder::new(
        schema,
        spec,
        SortOrder::unsorted_order(),
        "file:///w/t".into(),
        iceberg::spec::FormatVersion::V2,
        HashMap::new(),
    );
    builder.unwrap().build().unwrap().metadata
}

fn table_json() -> String {
    let metadata = serde_json::to_value(metadata()).unwrap();
    serde_json::json!({ "metadata-location": "file:///w/t/metadata/00000-x.metadata.json", "metadata": metadata })
        .to_string()
}

async fn serve(server: Server) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(answer).with_state(server);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

fn config(uri: String, properties: &[(&str, &str)]) -> CatalogConfig {
    let mut all = BTreeMap::from([("header.x-tenant".to_owned(), "blue".to_owned())]);
    all.extend(properties.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    CatalogConfig {
        name: "lake".into(),
        kind: CatalogKind::Rest { uri },
        warehouse: Some("wh one".into()),
        properties: all,
    }
}

fn name() -> TableName {
    TableName { namespace: vec!["a".into(), "b c".into()], table: "t".into() }
}

async fn commit(catalog: &RestCatalog) -> Answer {
    let base = Loaded {
        metadata: Arc::new(metadata()),
        location: "file:///w/t/metadata/0.metadata.json".into(),
        document: None,
    };
    catalog.commit(&name(), &base, vec![], vec![]).await
}

#[tokio::test]
async fn the_server_says_which_prefix_to_use_and_names_are_encoded() {
    let server = Server::default();
    let address = serve(server.clone()).await;
    let catalog = RestCatalog::open(&config(address, &[])).await.unwrap();
    assert!(catalog.load(&name(), None).await.unwrap().is_some());
    let seen = server.seen.lock().unwrap().clone();
    assert_eq!(seen, ["GET /v1/config?warehouse=wh+one", "GET /v1/ws/one/namespaces/a%1Fb%20c/tables/t"]);
    server.answers.lock().unwrap().push_back((404, String::new()));
    assert!(catalog.load(&name(), None).await.unwrap().is_none());
}

#[tokio::test]
async fn listings_of_several_pages_are_read_to_their_end() {
    let server = Server::default();
    let address = serve(server.clone()).await;
    let catalog = RestCatalog::open(&config(address, &[])).await.unwrap();
    let table = |name: &str| format!(r#"[{{"namespace": ["a"], "name": "{name}"}}]"#);
    server.answers.lock().unwrap().extend([
        (200, r#"{"namespaces": [], "next-page-token": "n1"}"#.to_owned()),
        (200, r#"{"namespaces": [["a"]], "next-page-token": null}"#.to_owned()),
        (200, format!(r#"{{"identifiers": {}, "next-page-token": "t1"}}"#, table("x"))),
        (200, format!(r#"{{"identifiers": {}}}"#, table("y"))),
        (200, r#"{"namespaces": []}"#.to_owned()),
    ]);
    let names: Vec<String> = catalog.list().await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a.x", "a.y"]);
    let seen = server.seen.lock().unwrap().clone();
    assert_eq!(seen[2], "GET /v1/ws/one/namespaces?pageToken=n1");
    assert_eq!(seen[4], "GET /v1/ws/one/namespaces/a/tables?pageToken=t1");
}

#[tokio::test]
async fn tokens_are_fetched_before_they_expire_and_again_when_refused() {
    let server = Server { token_life_s: 3600, ..Server::default() };
    server.valid_from.store(1, Ordering::SeqCst);
    let address = serve(server.clone()).await;
    let catalog = RestCatalog::open(&config(address.clone(), &[("credential", "id:hunter2")])).await.unwrap();
    let fetched = server.tokens.load(Ordering::SeqCst);
    catalog.load(&name(), None).await.unwrap();
    catalog.load(&name(), None).await.unwrap();
    assert_eq!(server.tokens.load(Ordering::SeqCst), fetched + 1, "one token serves many requests");
    server.valid_from.store(fetched + 2, Ordering::SeqCst);
    catalog.load(&name(), None).await.unwrap();
    assert_eq!(server.tokens.load(Ordering::SeqCst), fetched + 2);

    // While the token endpoint is down, requests fail; none of them ends the renewal for good.
    server.valid_from.store(fetched + 3, Ordering::SeqCst);
    *server.token_endpoint_down.lock().unwrap() = true;
    let error = catalog.load(&name(), None).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)) && !error.to_string().contains("hunter2"), "{error}");
    *server.token_endpoint_down.lock().unwrap() = false;
    catalog.load(&name(), None).await.unwrap();

    let short = Server { token_life_s: 0, ..Server::default() };
    let address = serve(short.clone()).await;
    let catalog = RestCatalog::open(&config(address, &[("credential", "id:hunter2")])).await.unwrap();
    let fetched = short.tokens.load(Ordering::SeqCst);
    catalog.load(&name(), None).await.unwrap();
    catalog.load(&name(), None).await.unwrap();
    assert_eq!(short.tokens.load(Ordering::SeqCst), fetched + 2, "an expired token is not sent");
}

#[tokio::test]
async fn a_commit_is_sent_once_and_its_answer_is_told_apart() {
    let server = Server::default();
    let address = serve(server.clone()).await;
    let catalog = RestCatalog::open(&config(address, &[])).await.unwrap();
    let conflict = r#"{"error":{"message":"branch main has changed","type":"CommitFailedException","code":409}}"#;
    for (status, body, wanted) in [
        (200, table_json(), "committed"),
        (200, "{".to_owned(), "unknown"),
        (400, String::new(), "refused"),
        (409, conflict.to_owned(), "refused"),
        (401, String::new(), "not sent"),
        (403, String::new(), "not sent"),
        (404, String::new(), "not sent"),
        (419, String::new(), "not sent"),
        (429, String::new(), "not sent"),
        (500, String::new(), "unknown"),
        (502, String::new(), "unknown"),
        (503, String::new(), "unknown"),
        (504, String::new(), "unknown"),
        (302, String::new(), "unknown"),
    ] {
        server.answers.lock().unwrap().push_back((status, body));
        let before = server.seen.lock().unwrap().len();
        let answer = match commit(&catalog).await {
            Answer::Committed(_) => "committed",
            Answer::Refused(_) => "refused",
            Answer::Unknown(_) => "unknown",
            Answer::NotSent(_) => "not sent",
        };
        assert_eq!(answer, wanted, "status {status}");
        assert_eq!(server.seen.lock().unwrap().len(), before + 1, "a commit is sent once, whatever the answer");
    }
}

#[tokio::test]
async fn a_server_that_is_down_is_unreachable_and_a_lost_answer_is_unknown() {
    let error = RestCatalog::open(&config("http://127.0.0.1:9".into(), &[])).await.err().unwrap();
    assert!(matches!(error, Error::Unreachable(_)), "{error}");

    let server = Server::default();
    let address = serve(server.clone()).await;
    let mut catalog = RestCatalog::open(&config(address, &[])).await.unwrap();
    // A server that takes the request and closes the connection without an answer.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    catalog.base = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1024]).await;
        }
    });
    assert!(matches!(commit(&catalog).await, Answer::Unknown(_)));
}
