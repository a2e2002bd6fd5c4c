//! Lists: read page by page, each page saying where the next one starts.

use serde_json::{Value, json};

use super::problem::{Code, Fault, Problem};

/// Items of a page where the caller does not say.
pub const DEFAULT_LIMIT: usize = 100;
/// Most items of a page.
pub const MAX_LIMIT: usize = 1_000;

/// The number of items asked for, within bounds.
///
/// # Errors
///
/// If it is none of 1 to [`MAX_LIMIT`].
pub fn limit(asked: Option<usize>) -> Result<usize, Problem> {
    match asked {
        None => Ok(DEFAULT_LIMIT),
        Some(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
        Some(_) => Err(Problem::new(Code::InvalidRequest, "A parameter is not right.").with_errors(vec![Fault::new(
            "",
            "outOfRange",
            format!("limit is 1 to {MAX_LIMIT}"),
        )])),
    }
}

/// One page of `items`, which come in the order of `key`: `{"<name>": […], "next": <key of the last item>}`. `next` is null
/// on the last page; as `after` it asks for the page that follows.
pub fn page<T>(
    name: &str,
    items: impl Iterator<Item = T>,
    limit: usize,
    key: impl Fn(&T) -> String,
    view: impl Fn(&T) -> Value,
) -> Value {
    let mut items = items.peekable();
    let taken: Vec<T> = items.by_ref().take(limit).collect();
    let next = items.peek().and(taken.last()).map(key);
    json!({ name: taken.iter().map(view).collect::<Vec<_>>(), "next": next })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_page_says_that_it_is_the_last() {
        let of = |limit| page("n", 1..=3, limit, ToString::to_string, |n| json!(n));
        assert_eq!(of(2), json!({"n": [1, 2], "next": "2"}));
        assert_eq!(of(3), json!({"n": [1, 2, 3], "next": null}));
        assert!(limit(Some(0)).is_err() && limit(Some(MAX_LIMIT + 1)).is_err());
    }
}
