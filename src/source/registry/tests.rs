use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::avro::SchemaKind;

type Answer = Arc<dyn Fn(usize, &str, &HeaderMap) -> Response + Send + Sync>;

#[derive(Clone)]
struct Fake {
    answer: Answer,
    asked: Arc<AtomicUsize>,
}

/// A registry that answers as told; returns it and how often it was asked.
async fn fake(
    answer: impl Fn(usize, &str, &HeaderMap) -> Response + Send + Sync + 'static,
) -> (Registry, Arc<AtomicUsize>) {
    let state = Fake { answer: Arc::new(answer), asked: Arc::default() };
    let asked = state.asked.clone();
    let app = Router::new()
        .route(
            "/api/{*path}",
            get(|State(fake): State<Fake>, Path(path): Path<String>, headers: HeaderMap| async move {
                let n = fake.asked.fetch_add(1, Ordering::Relaxed);
                (fake.answer)(n, &path, &headers)
            }),
        )
        .with_state(state);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let login = Some(Login::Basic("user".to_owned(), SecretString::from("secret")));
    let access = Access { login, ..Access::default() };
    (Registry::new(&format!("http://{address}/api"), access).unwrap(), asked)
}

fn json(status: u16, body: &serde_json::Value) -> Response {
    (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response()
}

#[tokio::test]
async fn a_schema_is_asked_for_once_and_with_the_password() {
    let (registry, asked) = fake(|_, path, headers| {
        assert_eq!(path, "schemas/ids/7");
        assert_eq!(headers["authorization"], "Basic dXNlcjpzZWNyZXQ=");
        json(200, &json!({"schema": "\"string\"", "maxId": 9}))
    })
    .await;
    assert_eq!(&*registry.schema(7).await.unwrap().text.text, "\"string\"");
    assert_eq!(&*registry.schema(7).await.unwrap().text.text, "\"string\"");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert!(registry.cached(7).is_some() && registry.cached(8).is_none());
}

/// FAILURES D6
#[tokio::test]
async fn only_the_registrys_own_not_found_makes_a_record_bad() {
    let answers: Vec<(u16, String, bool)> = vec![
        (404, json!({"error_code": 40403, "message": "Schema not found"}).to_string(), true),
        (404, json!({"error_code": 404, "message": "HTTP 404 Not Found"}).to_string(), false),
        (404, "<html>no such page</html>".into(), false),
        (401, json!({"error_code": 40101, "message": "no"}).to_string(), false),
        (403, json!({"error_code": 40301, "message": "no"}).to_string(), false),
        (429, String::new(), false),
        (500, json!({"error_code": 50001, "message": "store"}).to_string(), false),
        (502, String::new(), false),
        (302, String::new(), false),
        (200, "not json".into(), false),
        (200, "x".repeat(BODY_MAX + 1), false),
    ];
    for (status, body, bad) in answers {
        let reply = body.clone();
        let (registry, _) =
            fake(move |_, _, _| (StatusCode::from_u16(status).unwrap(), reply.clone()).into_response()).await;
        let error = registry.schema(1).await.unwrap_err();
        let seen = matches!(error, RegistryError::NotFound(_));
        let short = &body[..body.len().min(60)];
        assert_eq!(seen, bad, "{status} {short}: {error}");
        assert!(bad || matches!(error, RegistryError::Unavailable { .. }), "{status} {short}: {error}");
    }
}

#[tokio::test]
async fn nobody_at_the_address_is_an_outage_and_the_password_is_not_told() {
    let login = Some(Login::Basic("user".to_owned(), SecretString::from("hunter2")));
    let registry = Registry::new("http://me:hunter2@127.0.0.1:1", Access { login, ..Access::default() }).unwrap();
    let error = registry.schema(1).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unavailable { .. }), "{error}");
    assert!(!format!("{error} {registry:?}").contains("hunter2"));
    assert_eq!(Error::from(error).exit_code(), 3);
}

/// INV-17
#[tokio::test]
async fn an_outage_is_waited_out() {
    let (registry, asked) = fake(|n, _, _| match n {
        0 => json(503, &json!({})),
        1 => (StatusCode::NOT_FOUND, "<html>").into_response(),
        _ => json(200, &json!({"schema": "\"long\""})),
    })
    .await;
    let mut failed = 0;
    let schema = registry.schema_waiting(3, |_| failed += 1).await.unwrap();
    assert_eq!((&*schema.text.text, failed, asked.load(Ordering::Relaxed)), ("\"long\"", 2, 3));
}

/// FAILURES D4
#[tokio::test]
async fn another_schema_under_a_known_id_is_named() {
    let (registry, _) = fake(|n, _, _| match n {
        0 => json(200, &json!({"schema": "{\"type\": \"long\"}"})),
        1 => json(200, &json!({"schema": "{\"type\":\"long\"}"})),
        _ => json(200, &json!({"schema": "\"string\""})),
    })
    .await;
    registry.refresh(5).await.unwrap();
    registry.refresh(5).await.unwrap();
    let error = registry.refresh(5).await.unwrap_err();
    let of = |text| SchemaText::new(SchemaKind::Avro, text).fingerprint();
    assert_eq!(error, RegistryError::Changed { id: 5, held: of("\"long\""), now: of("\"string\"") });
    assert_eq!(Error::from(error).exit_code(), 4);
}

#[tokio::test]
async fn other_types_are_refused_in_plain_words() {
    let (registry, _) = fake(|_, _, _| json(200, &json!({"schema": "struct", "schemaType": "THRIFT"}))).await;
    assert!(registry.schema(1).await.unwrap_err().to_string().contains("type THRIFT, which is not read"));
}

const OUTER: &str = r#"{"type":"record","name":"R","namespace":"n","fields":[{"name":"a","type":"o.A"}]}"#;

/// Answers for a schema that refers to one that refers to a third.
fn referring(path: &str) -> Response {
    let refer = |name: &str, subject: &str| json!([{"name": name, "subject": subject, "version": 2}]);
    match path {
        "schemas/ids/1" => json(200, &json!({"schema": OUTER, "references": refer("o.A", "a/b")})),
        "subjects/a/b/versions/2" => {
            let schema = r#"{"type":"record","name":"A","namespace":"o","fields":[{"name":"b","type":"B"}]}"#;
            json(200, &json!({"schema": schema, "id": 8, "version": 2, "references": refer("o.B", "b")}))
        }
        "subjects/b/versions/2" => {
            json(200, &json!({"schema": r#"{"type":"fixed","name":"o.B","size":3}"#, "id": 9, "version": 2}))
        }
        other => panic!("asked for {other}"),
    }
}

#[tokio::test]
async fn types_of_other_subjects_are_written_out_and_are_part_of_what_an_id_means() {
    let (registry, asked) = fake(|_, path, _| referring(path)).await;
    let schema = registry.schema(1).await.unwrap();
    let written: serde_json::Value = serde_json::from_str(&schema.text.text).unwrap();
    assert_eq!(written["fields"][0]["type"]["fields"][0]["type"]["size"], 3, "{written}");
    assert_ne!(schema.fingerprint, Fingerprint::of(OUTER));
    assert_eq!(registry.schema(1).await.unwrap(), schema);
    assert_eq!(asked.load(Ordering::Relaxed), 3, "asked for once");
}

#[tokio::test]
async fn a_reference_that_is_missing_is_no_fault_of_the_record() {
    let (registry, _) = fake(|_, path, _| match path {
        "subjects/b/versions/2" => json(404, &json!({"error_code": 40401, "message": "Subject not found"})),
        other => referring(other),
    })
    .await;
    let error = registry.schema(1).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("version 2 of subject b, to which"), "{error}");
    let (endless, _) = fake(|n, _, _| {
        let next = json!([{"name": "x", "subject": format!("s{n}"), "version": 1}]);
        json(200, &json!({"schema": "\"x\"", "id": 1, "version": 1, "references": next}))
    })
    .await;
    let error = endless.schema(1).await.unwrap_err();
    assert!(error.to_string().contains("refers to more than 100 other schemas"), "{error}");
}

#[tokio::test]
async fn a_token_is_sent_as_such() {
    let (basic, _) = fake(|_, _, headers| {
        assert_eq!(headers["authorization"], "Bearer hunter2");
        json(200, &json!({"schema": "\"int\""}))
    })
    .await;
    let access = Access { login: Some(Login::Bearer("hunter2".into())), ..Access::default() };
    let registry = Registry::new(basic.base.as_str(), access).unwrap();
    assert!(registry.schema(1).await.is_ok());
    assert!(!format!("{registry:?}").contains("hunter2"));
}

#[test]
fn certificates_that_are_none_are_refused_by_their_key() {
    let ca = Access { authorities: Some(b"nonsense".to_vec()), ..Access::default() };
    let identity = Access { identity: Some("nonsense".into()), ..Access::default() };
    for (access, key) in [(ca, "tls.ca"), (identity, "tls.certificate")] {
        let error = Registry::new("https://localhost", access).unwrap_err();
        assert!(error.to_string().contains(key) && error.exit_code() == 2, "{error}");
    }
}

#[tokio::test]
async fn subjects_are_escaped_and_versions_read() {
    let (registry, _) = fake(|_, path, _| match path {
        "subjects" => json(200, &json!(["a", "b"])),
        "subjects/x/y-value/versions/latest" => json(
            200,
            &json!({"subject": "x/y-value", "version": 3, "id": 12, "schema": "\"int\"", "schemaType": "AVRO"}),
        ),
        other => panic!("asked for {other}"),
    })
    .await;
    assert_eq!(registry.subjects().await.unwrap(), ["a", "b"]);
    let latest = registry.latest("x/y-value").await.unwrap();
    assert_eq!((latest.version, latest.schema.id), (3, 12));
    assert!(registry.cached(12).is_some());
}

/// What the server sends, and until when: it closes the connection, keeps it open, or goes on sending the rest for ever.
enum Then {
    Close,
    Wait,
    Repeat(Vec<u8>),
    Drip(&'static [u8]),
}

/// A registry at which every connection is answered with these bytes; how many connections there were, and how many bytes
/// it could send.
async fn raw(first: Vec<u8>, then: Then) -> (Registry, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, sent) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (count, bytes, shared) = (asked.clone(), sent.clone(), Arc::new((first, then)));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let (bytes, shared) = (bytes.clone(), shared.clone());
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let (first, then) = &*shared;
                stream.write_all(first).await?;
                match then {
                    Then::Close => {}
                    Then::Wait => tokio::time::sleep(Duration::from_secs(60)).await,
                    Then::Repeat(part) => loop {
                        stream.write_all(part).await?;
                        bytes.fetch_add(part.len(), Ordering::Relaxed);
                    },
                    Then::Drip(part) => loop {
                        stream.write_all(part).await?;
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    },
                }
                std::io::Result::Ok(())
            });
        }
    });
    (Registry::patient(&url, Access::default(), Duration::from_secs(2)).unwrap(), asked, sent)
}

fn http(head: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\n{head}\r\n").as_bytes(), body].concat()
}

/// INV-17, INV-18, FAILURES D6: silence among them
#[tokio::test]
async fn no_answer_takes_more_memory_or_time_than_there_is() {
    let sized = |body: &[u8]| http(&format!("content-length: {}\r\n", body.len()), body);
    let deep = "[".repeat(100_000);
    let ones = "1,".repeat(500_000);
    let mut gzip = http("content-encoding: gzip\r\ncontent-length: 26\r\n", b"");
    gzip.extend([
        0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x4b, 0x4c, 0x44, 0, 0, 0x0b, 0x7e, 0x2b, 0x0c, 3, 0, 0, 0, 0, 0, 0,
    ]);
    let cases: Vec<(&str, Vec<u8>, Then)> = vec![
        ("closed at once", Vec::new(), Then::Close),
        ("silence", Vec::new(), Then::Wait),
        ("not http", b"220 smtp.example\r\n".to_vec(), Then::Wait),
        (
            "a head that never ends",
            b"HTTP/1.1 200 OK\r\n".to_vec(),
            Then::Repeat([&b"x: "[..], &[b'y'; 8000], b"\r\n"].concat()),
        ),
        ("a head that drips", b"HTTP/1.1 200 OK\r\n".to_vec(), Then::Drip(b"x: y\r\n")),
        (
            "a body that never ends",
            http("transfer-encoding: chunked\r\n", b""),
            Then::Repeat([&b"10000\r\n"[..], &[b' '; 65536], b"\r\n"].concat()),
        ),
        ("a body of 1 TiB", http("content-length: 1099511627776\r\n", b""), Then::Repeat(vec![b' '; 65536])),
        ("a body that drips", http("content-length: 1000000\r\n", b""), Then::Drip(b" ")),
        ("a body that stops", http("content-length: 100\r\n", br#"{"schema":"#), Then::Wait),
        ("a body that is cut off", http("content-length: 100\r\n", br#"{"schema":"\"int\""}"#), Then::Close),
        (
            "a chunk of a size that is none",
            http("transfer-encoding: chunked\r\n", b"ffffffffffffffffff\r\n"),
            Then::Wait,
        ),
        ("two lengths", http("content-length: 1\r\ncontent-length: 2\r\n", b"{}"), Then::Close),
        ("100 000 levels", sized(deep.as_bytes()), Then::Close),
        (
            "100 000 levels of references",
            sized(format!(r#"{{"schema":"x","references":{deep}"#).as_bytes()),
            Then::Close,
        ),
        ("100 000 levels of something else", sized(format!(r#"{{"schema":"x","else":{deep}"#).as_bytes()), Then::Close),
        (
            "numbers for references",
            sized(format!(r#"{{"schema":"x","references":[{ones}1]}}"#).as_bytes()),
            Then::Close,
        ),
        ("a number for a schema", sized(br#"{"schema": 1}"#), Then::Close),
        ("no utf-8", sized(b"{\"schema\": \"\xff\"}"), Then::Close),
        ("a page", sized(b"<html>"), Then::Close),
        ("compressed, and nobody asked for it", gzip, Then::Close),
        (
            "a redirect to itself",
            b"HTTP/1.1 302 Found\r\nlocation: /schemas/ids/1\r\ncontent-length: 0\r\n\r\n".to_vec(),
            Then::Close,
        ),
        ("an empty success", b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), Then::Close),
    ];
    for (what, first, then) in cases {
        let (registry, asked, sent) = raw(first, then).await;
        let started = std::time::Instant::now();
        let error = registry.schema(1).await.unwrap_err();
        assert!(matches!(error, RegistryError::Unavailable { .. }), "{what}: {error}");
        assert!(error.to_string().len() < 500, "{what}: {error}");
        assert!(started.elapsed() < Duration::from_secs(10), "{what}: {:?}", started.elapsed());
        // What fits into the sockets' buffers may be sent and is never read.
        assert!(sent.load(Ordering::Relaxed) < BODY_MAX + (16 << 20), "{what}: {sent:?} bytes");
        assert_eq!(asked.load(Ordering::Relaxed), 1, "{what}: asked again");
        assert!(registry.cached(1).is_none(), "{what}");
    }
}

#[tokio::test]
async fn what_an_answer_calls_itself_does_not_matter() {
    for kind in ["text/html", "application/octet-stream", "nonsense"] {
        let head = format!("content-type: {kind}\r\ncontent-length: 20\r\n");
        let (registry, ..) = raw(http(&head, br#"{"schema":"\"int\""}"#), Then::Close).await;
        assert_eq!(&*registry.schema(1).await.unwrap().text.text, "\"int\"", "{kind}");
    }
}

#[tokio::test]
async fn schemas_that_others_refer_to_are_bounded_together() {
    let (registry, _) = fake(|n, _, _| {
        let next = json!([{"name": "x", "subject": format!("s{n}"), "version": 1}]);
        json(200, &json!({"schema": format!("\"{}\"", "x".repeat(500_000)), "references": next}))
    })
    .await;
    let error = registry.schema(1).await.unwrap_err();
    assert!(error.to_string().contains("have more than 2097152 bytes"), "{error}");
    let all: Vec<_> = (0..101).map(|n| json!({"name": "x", "subject": "s", "version": n})).collect();
    let (registry, asked) = fake(move |_, _, _| json(200, &json!({"schema": "\"x\"", "references": all}))).await;
    let error = registry.schema(1).await.unwrap_err();
    assert!(error.to_string().contains("refers to more than 100"), "{error}");
    assert_eq!(asked.load(Ordering::Relaxed), 1, "none of them is fetched");
}

/// INV-18
#[test]
fn the_cache_is_bounded_in_bytes_too() {
    let mut known = Known::default();
    let text: Arc<str> = Arc::from("x".repeat(1 << 20));
    for id in 0..100 {
        known
            .admit(Schema { id, text: SchemaText::new(SchemaKind::Avro, &text), fingerprint: Fingerprint(0) })
            .unwrap();
        known
            .admit(Schema { id, text: SchemaText::new(SchemaKind::Avro, &text), fingerprint: Fingerprint(0) })
            .unwrap();
    }
    assert_eq!((known.schemas.len(), known.order.len(), known.bytes), (64, 64, 64 << 20));
    assert!(known.schemas.contains_key(&99) && !known.schemas.contains_key(&35));
}

/// FAILURES D4, INV-18
#[test]
fn the_cache_lets_the_oldest_go_but_not_what_it_meant() {
    let mut known = Known::default();
    let schema = |id, text: &str| Schema {
        id,
        text: SchemaText::new(SchemaKind::Avro, text),
        fingerprint: SchemaText::new(SchemaKind::Avro, text).fingerprint(),
    };
    for id in 0..=i32::try_from(SCHEMAS_MAX).unwrap() {
        known.admit(schema(id, "\"int\"")).unwrap();
    }
    assert_eq!((known.schemas.len(), known.order.len()), (SCHEMAS_MAX, SCHEMAS_MAX));
    assert!(!known.schemas.contains_key(&0));
    let changed = known.admit(schema(0, "\"long\"")).unwrap_err();
    assert!(matches!(changed, RegistryError::Changed { id: 0, .. }), "{changed}");
}

#[test]
fn an_address_that_is_none_is_refused() {
    for bad in ["localhost:8081", "ftp://x", "nonsense", ""] {
        assert!(matches!(Registry::new(bad, Access::default()), Err(Error::Config(_))), "{bad}");
    }
}
