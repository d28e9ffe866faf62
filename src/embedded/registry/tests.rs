use reqwest::Method;
use serde_json::{Value, json};

use super::*;
use crate::embedded::market;

const V1: &str = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"long"}]}"#;
const V2: &str = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"long"},{"name":"n","type":["null","string"],"default":null}]}"#;
const V3: &str = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"long"},{"name":"n","type":"string"}]}"#;
const NESTED: &str = include_str!("../../../schemas/nested_example.avsc");
const EVENT_V2: &str = include_str!("../../../schemas/market_event_v2.avsc");

struct Client {
    registry: Registry,
    http: reqwest::Client,
}

impl Client {
    async fn new() -> Client {
        let registry = Registry::start(([127, 0, 0, 1], 0).into()).await.unwrap();
        Client { registry, http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<String>) -> (u16, Value) {
        let mut request = self.http.request(method, format!("{}{path}", self.registry.url()));
        if let Some(body) = body {
            request = request.header("content-type", "application/vnd.schemaregistry.v1+json").body(body);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/vnd.schemaregistry.v1+json", "{path}");
        (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(Method::GET, path, None).await
    }

    async fn delete(&self, path: &str) -> (u16, Value) {
        self.ask(Method::DELETE, path, None).await
    }

    async fn post(&self, path: &str, schema: &str) -> (u16, Value) {
        self.ask(Method::POST, path, Some(json!({"schema": schema}).to_string())).await
    }

    async fn put(&self, path: &str, level: &str) -> (u16, Value) {
        self.ask(Method::PUT, path, Some(json!({"compatibility": level}).to_string())).await
    }
}

/// What of an error a client program looks at.
fn code(answer: (u16, Value)) -> (u16, u64) {
    assert!(answer.1["message"].as_str().is_some_and(|m| !m.is_empty()), "{answer:?}");
    (answer.0, answer.1["error_code"].as_u64().unwrap())
}

#[tokio::test]
async fn a_schema_is_registered_once_and_found_every_way() {
    let client = Client::new().await;
    let ok = |value: Value| (200, value);
    assert_eq!(client.get("/subjects").await, ok(json!([])));
    assert_eq!(client.post("/subjects/a%2Fb-value/versions", V1).await, ok(json!({"id": 1})));
    let spaced = V1.replace(r#""long""#, r#"{ "type": "long" }"#);
    assert_eq!(client.post("/subjects/a%2Fb-value/versions", &spaced).await, ok(json!({"id": 1})));
    assert_eq!(client.post("/subjects/a%2Fb-value/versions", V2).await, ok(json!({"id": 2})));
    assert_eq!(client.post("/subjects/other/versions", V2).await, ok(json!({"id": 2})));
    assert_eq!(client.get("/subjects").await, ok(json!(["a/b-value", "other"])));
    assert_eq!(client.get("/subjects?subjectPrefix=o").await, ok(json!(["other"])));
    assert_eq!(client.get("/subjects/a%2Fb-value/versions").await, ok(json!([1, 2])));
    let second = json!({"subject": "a/b-value", "id": 2, "version": 2, "schema": V2});
    assert_eq!(client.get("/subjects/a%2Fb-value/versions/2").await, ok(second.clone()));
    assert_eq!(client.get("/subjects/a%2Fb-value/versions/latest").await, ok(second.clone()));
    assert_eq!(client.get("/subjects/a%2Fb-value/versions/-1").await, ok(second.clone()));
    assert_eq!(client.post("/subjects/a%2Fb-value", V2).await, ok(second));
    assert_eq!(client.get("/schemas/ids/1").await, ok(json!({"schema": V1})));
    assert_eq!(client.get("/schemas/ids/1/schema").await, ok(serde_json::from_str(V1).unwrap()));
    assert_eq!(client.get("/subjects/other/versions/1/schema").await, ok(serde_json::from_str(V2).unwrap()));
    assert_eq!(client.get("/schemas/ids/2/subjects").await, ok(json!(["a/b-value", "other"])));
    assert_eq!(
        client.get("/schemas/ids/2/versions").await,
        ok(json!([{"subject": "a/b-value", "version": 2}, {"subject": "other", "version": 1}]))
    );
    assert_eq!(client.get("/schemas/types").await, ok(json!(["AVRO"])));
}

#[tokio::test]
async fn errors_have_the_codes_that_clients_know() {
    let client = Client::new().await;
    client.post("/subjects/s/versions", V1).await;
    let gets = [
        ("/subjects/none/versions", (404, 40401)),
        ("/subjects/none/versions/1", (404, 40401)),
        ("/subjects/s/versions/2", (404, 40402)),
        ("/subjects/s/versions/0", (422, 42202)),
        ("/subjects/s/versions/first", (422, 42202)),
        ("/schemas/ids/0", (404, 40403)),
        ("/schemas/ids/2", (404, 40403)),
        ("/schemas/ids/x", (404, 404)),
        ("/config/s", (404, 40408)),
        ("/nowhere", (404, 404)),
    ];
    for (path, expected) in gets {
        assert_eq!(code(client.get(path).await), expected, "{path}");
    }
    assert_eq!(code(client.post("/subjects/s", V2).await), (404, 40403));
    assert_eq!(code(client.post("/subjects/none", V2).await), (404, 40401));
    assert_eq!(code(client.post("/subjects/s/versions", V3).await), (409, 409));
    for bad in ["", "{", "long", r#"{"type":"record"}"#, r#"{"type":"nonsense"}"#] {
        assert_eq!(code(client.post("/subjects/s/versions", bad).await), (422, 42201), "{bad}");
    }
    assert_eq!(code(client.put("/config", "SIDEWAYS").await), (422, 42203));
    let raw = |body: Value| client.ask(Method::POST, "/subjects/s/versions", Some(body.to_string()));
    assert_eq!(code(raw(json!(["not an object"])).await), (400, 400));
    assert_eq!(code(raw(json!({"schema": "{}", "schemaType": "PROTOBUF"})).await), (422, 42201));
    let references = json!([{"name": "x", "subject": "y", "version": 1}]);
    let refused = raw(json!({"schema": V1, "references": references})).await;
    assert!(refused.1["message"].as_str().unwrap().contains("references"), "{refused:?}");
    assert_eq!(code(refused), (422, 42201));
    assert_eq!(code(client.ask(Method::PATCH, "/config", None).await), (405, 405));
    let huge = format!("\"{}\"", " ".repeat(BODY_BYTES_MAX));
    assert_eq!(code(client.post("/subjects/s/versions", &huge).await), (413, 413));
    assert_eq!(client.get("/subjects/s/versions").await, (200, json!([1])), "nothing was added");
}

#[tokio::test]
async fn a_level_decides_what_may_follow_what() {
    let client = Client::new().await;
    assert_eq!(client.get("/config").await, (200, json!({"compatibilityLevel": "BACKWARD"})));
    // V1 then V2 then V3: each step may be allowed or not.
    let cases = [
        ("NONE", [200, 200, 200]),
        ("BACKWARD", [200, 200, 409]),
        ("BACKWARD_TRANSITIVE", [200, 200, 409]),
        ("FORWARD", [200, 200, 200]),
        ("FORWARD_TRANSITIVE", [200, 200, 200]),
        ("FULL", [200, 200, 409]),
        ("full_transitive", [200, 200, 409]),
    ];
    for (level, expected) in cases {
        let subject = format!("s-{level}");
        assert_eq!(client.put(&format!("/config/{subject}"), level).await.0, 200);
        for (schema, status) in [V1, V2, V3].iter().zip(expected) {
            let answer = client.post(&format!("/subjects/{subject}/versions"), schema).await;
            assert_eq!(answer.0, status, "{level} {schema}: {answer:?}");
        }
    }
    // Only the transitive level looks past the latest version.
    let (base, with_default) = (r#""string""#, r#"["string","null"]"#);
    for (level, status) in [("BACKWARD", 200), ("BACKWARD_TRANSITIVE", 409)] {
        let subject = format!("t-{level}");
        client.put(&format!("/config/{subject}"), "NONE").await;
        for schema in [r#""boolean""#, base] {
            assert_eq!(client.post(&format!("/subjects/{subject}/versions"), schema).await.0, 200);
        }
        client.put(&format!("/config/{subject}"), level).await;
        assert_eq!(client.post(&format!("/subjects/{subject}/versions"), with_default).await.0, status, "{level}");
    }
    client.put("/config", "NONE").await;
    assert_eq!(client.get("/config/fresh?defaultToGlobal=true").await.1, json!({"compatibilityLevel": "NONE"}));
    assert_eq!(client.delete("/config/s-FULL").await, (200, json!({"compatibilityLevel": "FULL"})));
    assert_eq!(code(client.get("/config/s-FULL").await), (404, 40408));
}

#[tokio::test]
async fn compatibility_is_answered_without_registering() {
    let client = Client::new().await;
    client.post("/subjects/s/versions", V1).await;
    client.post("/subjects/s/versions", V2).await;
    let yes = (200, json!({"is_compatible": true}));
    assert_eq!(client.post("/compatibility/subjects/s/versions/latest", V1).await, yes);
    assert_eq!(client.post("/compatibility/subjects/s/versions", V1).await, yes);
    assert_eq!(client.post("/compatibility/subjects/none/versions/latest", V1).await, yes);
    assert_eq!(client.post("/compatibility/subjects/s/versions/1", V3).await, (200, json!({"is_compatible": false})));
    let told = client.post("/compatibility/subjects/s/versions/1?verbose=true", V3).await.1;
    assert!(told["messages"][0].as_str().unwrap().contains("READER_FIELD_MISSING_DEFAULT_VALUE"), "{told}");
    assert_eq!(code(client.post("/compatibility/subjects/s/versions/9", V1).await), (404, 40402));
    assert_eq!(code(client.post("/compatibility/subjects/none/versions/1", V1).await), (404, 40401));
    assert_eq!(client.get("/subjects/s/versions").await.1, json!([1, 2]));
}

#[tokio::test]
async fn deleting_is_soft_before_it_is_permanent_and_ids_are_never_given_twice() {
    let client = Client::new().await;
    client.post("/subjects/s/versions", V1).await;
    client.post("/subjects/s/versions", V2).await;
    assert_eq!(code(client.delete("/subjects/s/versions/1?permanent=true").await), (404, 40407));
    assert_eq!(client.delete("/subjects/s/versions/1").await, (200, json!(1)));
    assert_eq!(code(client.delete("/subjects/s/versions/1").await), (404, 40406));
    assert_eq!(code(client.get("/subjects/s/versions/1").await), (404, 40402));
    assert_eq!(client.get("/subjects/s/versions/1?deleted=true").await.0, 200);
    assert_eq!(client.get("/schemas/ids/1").await.0, 200, "records on the topic still carry this id");
    assert_eq!(client.delete("/subjects/s/versions/1?permanent=true").await, (200, json!(1)));
    assert_eq!(code(client.get("/schemas/ids/1").await), (404, 40403));

    assert_eq!(code(client.delete("/subjects/s?permanent=true").await), (404, 40405));
    assert_eq!(client.delete("/subjects/s").await, (200, json!([2])));
    assert_eq!(code(client.delete("/subjects/s").await), (404, 40404));
    assert_eq!(client.get("/subjects").await.1, json!([]));
    assert_eq!(client.get("/subjects?deleted=true").await.1, json!(["s"]));
    assert_eq!(code(client.get("/subjects/s/versions").await), (404, 40401));
    // What comes back gets its old id and a new version; what is new gets an id that nothing had.
    assert_eq!(client.post("/subjects/s/versions", V2).await.1, json!({"id": 2}));
    assert_eq!(client.get("/subjects/s/versions").await.1, json!([3]));
    client.delete("/subjects/s").await;
    assert_eq!(client.delete("/subjects/s?permanent=true").await, (200, json!([3])));
    assert_eq!(code(client.delete("/subjects/s").await), (404, 40401));
    assert_eq!(client.post("/subjects/s/versions", V3).await.1, json!({"id": 3}));
    assert_eq!(client.get("/subjects/s/versions").await.1, json!([1]));
}

#[tokio::test]
async fn the_schemas_of_this_repository_can_be_registered_in_process() {
    let client = Client::new().await;
    let registry = &client.registry;
    assert_eq!(registry.register("market-value", market::VALUE_SCHEMA).unwrap(), 1);
    assert_eq!(registry.register("market-key", market::KEY_SCHEMA).unwrap(), 2);
    registry.set_level(Some("market-value"), Level::FullTransitive).unwrap();
    assert_eq!(registry.register("market-value", EVENT_V2).unwrap(), 3);
    assert_eq!(registry.register("order-value", NESTED).unwrap(), 4);
    let unlike = NESTED.replace(r#""name": "weight", "type": "float""#, r#""name": "mass", "type": "float""#);
    assert!(matches!(registry.register("order-value", &unlike), Err(Error::No(why)) if why.contains("/mass")));
    assert!(matches!(registry.register("order-value", "{}"), Err(Error::Config(_))));
    assert_eq!(client.get("/schemas/ids/4").await.1["schema"], json!(NESTED));
}

#[tokio::test]
async fn a_stopped_registry_does_not_wait_for_an_idle_connection() {
    let registry = Registry::start(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = registry.address;
    let idle = tokio::net::TcpStream::connect(address).await.unwrap();
    registry.stop().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    drop(idle);
}
