//! The document knows every endpoint, and says how it is configured.

use std::path::Path;

use serde_json::Value;

use super::document;
use crate::config;
use crate::identity::Endpoint;

fn of(text: &str) -> Value {
    let config = config::parse(text, Path::new("gateway.yaml"), &|_| None).unwrap();
    document(&config, "/auth/verify")
}

#[test]
fn every_method_of_every_endpoint_is_described() {
    for text in ["", "identity: {prefix: /id, registration: closed}", "identity: {responses: flask, users: anyone}"] {
        let config = config::parse(text, Path::new("gateway.yaml"), &|_| None).unwrap();
        let document = of(text);
        for endpoint in Endpoint::ALL {
            let item = &document["paths"][endpoint.place(&config.identity)];
            for method in endpoint.methods().split(", ") {
                let operation = &item[method.to_ascii_lowercase()];
                let id = operation["operationId"].as_str().unwrap_or_default();
                assert!(!id.is_empty(), "{endpoint:?} {method}: {operation}");
                assert!(operation["responses"].as_object().unwrap().len() > 3, "{endpoint:?} {method}: {operation}");
            }
        }
        assert_eq!(document["paths"].as_object().unwrap().len(), Endpoint::ALL.len() + 1);
    }
}

#[test]
fn it_follows_the_configuration() {
    let standard = of("");
    let registration = &standard["paths"]["/registration"]["post"];
    assert_eq!(registration["responses"]["201"]["description"], "done");
    assert!(registration["requestBody"]["content"]["multipart/form-data"].is_null());
    let forbidden = &standard["paths"]["/users"]["get"]["responses"]["403"];
    assert_eq!(forbidden["headers"]["WWW-Authenticate"]["required"], true, "{forbidden}");
    let busy = &standard["paths"]["/login"]["post"]["responses"]["503"];
    assert_eq!(busy["headers"]["Retry-After"]["required"], true, "{busy}");

    let verify = &standard["paths"]["/auth/verify"]["get"]["responses"];
    let statuses: Vec<&str> = verify.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(statuses, ["200", "401", "403", "503"]);
    assert_eq!(verify["403"]["description"], "bad_header, bad_request, forbidden, headers_too_large");

    let flask = of("identity: {responses: flask}");
    let login = &flask["paths"]["/login"]["post"];
    assert_eq!(login["responses"]["200"]["description"], "done, wrong_credentials");
    assert_eq!(login["responses"]["200"]["headers"]["Portcullis-Error"]["required"], false);
    assert!(login["responses"]["401"].is_null());
    assert!(login["requestBody"]["content"]["multipart/form-data"].is_object());
    assert!(flask["paths"]["/token/refresh"]["post"]["responses"]["422"].is_object());

    let closed = of("identity: {registration: closed, users: off}");
    assert!(closed["paths"]["/users"].is_null());
    let registration = &closed["paths"]["/registration"]["post"];
    assert!(registration["requestBody"].is_null() && registration["responses"]["201"].is_null(), "{registration}");
    assert_eq!(registration["responses"]["403"]["description"], "registration_closed");
}
