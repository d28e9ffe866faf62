//! The store over a bucket: a small S3 server that behaves as a test says.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::Response;

use super::super::*;

/// What becomes of the next put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Put {
    /// As S3 does it.
    Right,
    /// As if there were no If-None-Match.
    Blind,
    /// Nothing is kept, and this is the status.
    Answer(u16),
    /// It is kept, and this is the status.
    KeptBut(u16),
}

#[derive(Clone)]
struct Server {
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
    seen: Arc<Mutex<Vec<String>>>,
    next: Arc<Mutex<VecDeque<Put>>>,
    otherwise: Put,
}

async fn answer(State(server): State<Server>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let path = parts.uri.path().to_owned();
    server.seen.lock().unwrap().push(format!("{} {path}", parts.method));
    let reply = |status: u16, body: Bytes| {
        Response::builder()
            .status(status)
            .header("etag", "\"e\"")
            .header("last-modified", "Tue, 01 Jan 2030 00:00:00 GMT")
            .body(Body::from(body))
            .unwrap()
    };
    let mut objects = server.objects.lock().unwrap();
    if parts.method == Method::PUT {
        let how = server.next.lock().unwrap().pop_front().unwrap_or(server.otherwise);
        let exists = objects.contains_key(&path) && parts.headers.contains_key("if-none-match");
        return match how {
            Put::Right if exists => reply(412, Bytes::new()),
            Put::Answer(status) => reply(status, Bytes::new()),
            Put::Right | Put::Blind | Put::KeptBut(_) => {
                objects.insert(path, body);
                reply(if let Put::KeptBut(status) = how { status } else { 200 }, Bytes::new())
            }
        };
    }
    // Deletes come in one request for many.
    if parts.method == Method::POST && parts.uri.query() == Some("delete") {
        let text = String::from_utf8(body.to_vec()).unwrap();
        for key in text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()) {
            objects.remove(&format!("{path}/{key}"));
        }
        return reply(200, "<DeleteResult></DeleteResult>".into());
    }
    match objects.get(&path) {
        Some(found) => reply(200, found.clone()),
        None => reply(404, "<Error><Code>NoSuchKey</Code></Error>".into()),
    }
}

/// A server and a store that knows it.
async fn serve(otherwise: Put, next: &[Put]) -> (Server, Store) {
    let server = Server {
        objects: Arc::default(),
        seen: Arc::default(),
        next: Arc::new(Mutex::new(next.iter().copied().collect())),
        otherwise,
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(answer).with_state(server.clone());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let properties = [("s3.endpoint", address.as_str()), ("s3.access-key-id", "k"), ("s3.secret-access-key", "s")];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned()));
    (server, Store::with_properties(&BTreeMap::from(properties)))
}

const AT: &str = "s3://b/log/00000000000000000001.json";

#[tokio::test]
async fn a_put_if_absent_is_sent_once_whatever_the_answer() {
    for (how, wanted) in [
        (Put::Right, "true"),
        (Put::Answer(412), "false"),
        (Put::Answer(409), "false"),
        (Put::Answer(403), "error"),
        (Put::Answer(429), "error"),
        (Put::Answer(500), "error"),
        (Put::Answer(503), "error"),
        (Put::KeptBut(503), "error"),
    ] {
        let (server, store) = serve(how, &[]).await;
        let created = match store.create(AT, Bytes::from_static(b"x")).await {
            Ok(created) => created.to_string(),
            Err(Error::Unreachable(_)) => "error".into(),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(created, wanted, "{how:?}");
        assert_eq!(*server.seen.lock().unwrap(), ["PUT /b/log/00000000000000000001.json"], "{how:?}");
        // Whoever asks what is there gets the truth, an own lost answer included.
        let there = store.get_if_there(AT).await.unwrap();
        assert_eq!(there.is_some(), matches!(how, Put::Right | Put::KeptBut(_)), "{how:?}");
    }
}

#[tokio::test]
async fn a_new_object_is_put_again_when_the_store_is_busy() {
    let (server, store) = serve(Put::Right, &[Put::Answer(503), Put::KeptBut(500)]).await;
    store.put("s3://b/data/x.parquet", Bytes::from_static(b"rows")).await.unwrap();
    assert_eq!(server.seen.lock().unwrap().len(), 3);
    assert_eq!(store.get("s3://b/data/x.parquet").await.unwrap(), "rows");
    let (server, store) = serve(Put::Answer(503), &[]).await;
    let error = store.put("s3://b/data/x.parquet", Bytes::from_static(b"rows")).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable(m) if m.contains("503")), "{error}");
    assert!(server.seen.lock().unwrap().len() <= 4, "whoever asked has a loop of its own");
    assert!(
        server.seen.lock().unwrap().iter().all(|line| line.starts_with("PUT")),
        "no parts, so none are left behind"
    );
}

#[tokio::test]
async fn a_store_on_which_two_writers_can_take_one_version_is_refused() {
    let (server, store) = serve(Put::Right, &[]).await;
    store.probe_create("s3://b/w").await.unwrap();
    assert!(server.objects.lock().unwrap().is_empty(), "the probe is removed");

    for (how, wanted) in [(Put::Blind, "told to leave alone"), (Put::Answer(501), "does not know conditional writes")] {
        let (_server, store) = serve(how, &[]).await;
        let error = store.probe_create("s3://b/w").await.unwrap_err();
        assert!(matches!(&error, Error::Config(m) if m.contains("s3://b/w") && m.contains(wanted)), "{how:?}: {error}");
    }
    // No answer is no verdict.
    let (_server, store) = serve(Put::Answer(503), &[]).await;
    assert!(matches!(store.probe_create("s3://b/w").await, Err(Error::Unreachable(_))));
    let (_server, store) = serve(Put::Right, &[Put::Answer(409)]).await;
    assert!(matches!(store.probe_create("s3://b/w").await, Err(Error::Unreachable(_))));
}
