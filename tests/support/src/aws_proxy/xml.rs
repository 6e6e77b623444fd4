//! XML helpers: build, read and edit responses.
//!
//! Edits replace byte ranges instead of serializing a parsed tree, so that elements of the emulator that the proxy does
//! not know are passed through unchanged.

use std::ops::Range;

use roxmltree::{Document, Node};

/// Escapes text content.
#[must_use]
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML parsers normalize a bare CR to LF.
            '\r' => out.push_str("&#xD;"),
            _ => out.push(c),
        }
    }
    out
}

/// `<name>value</name>` with an escaped value.
#[must_use]
pub(super) fn leaf(name: &str, value: &str) -> String {
    format!("<{name}>{}</{name}>", escape(value))
}

/// `<name>inner</name>`, where `inner` is XML.
#[must_use]
pub(super) fn wrap(name: &str, inner: &str) -> String {
    format!("<{name}>{inner}</{name}>")
}

/// The first element of this name at any depth; namespaces are ignored.
#[must_use]
pub(super) fn find<'a, 'i>(document: &'a Document<'i>, name: &str) -> Option<Node<'a, 'i>> {
    document.descendants().find(|node| node.is_element() && node.tag_name().name() == name)
}

/// The first child element of this name.
#[must_use]
pub(super) fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|node| node.is_element() && node.tag_name().name() == name)
}

/// The text of the first child element of this name.
#[must_use]
pub(super) fn child_text<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    child(node, name).map(|node| node.text().unwrap_or(""))
}

/// The `member` children of a list element.
pub(super) fn members<'a, 'i>(list: Node<'a, 'i>) -> impl Iterator<Item = Node<'a, 'i>> {
    list.children().filter(|node| node.is_element() && node.tag_name().name() == "member")
}

/// The text of the first element of this name in a response; `None` if there is none or the body is not XML.
#[must_use]
pub(super) fn text_in(body: &str, name: &str) -> Option<String> {
    let document = Document::parse(body).ok()?;
    find(&document, name).map(|node| node.text().unwrap_or("").to_owned())
}

/// The text of every element of this name in a response.
#[must_use]
pub(super) fn texts_in(body: &str, name: &str) -> Vec<String> {
    let Ok(document) = Document::parse(body) else {
        return Vec::new();
    };
    document
        .descendants()
        .filter(|node| node.is_element() && node.tag_name().name() == name)
        .map(|node| node.text().unwrap_or("").to_owned())
        .collect()
}

/// Edits of one XML text, collected while its document is borrowed and applied together.
#[derive(Debug)]
pub(super) struct Edits<'s> {
    source: &'s str,
    cuts: Vec<(Range<usize>, String)>,
}

impl<'s> Edits<'s> {
    #[must_use]
    pub(super) fn new(source: &'s str) -> Self {
        Self { source, cuts: Vec::new() }
    }

    /// Replaces this element by `xml`.
    pub(super) fn replace(&mut self, node: Node<'_, '_>, xml: impl Into<String>) {
        self.cuts.push((node.range(), xml.into()));
    }

    /// Removes this element.
    pub(super) fn remove(&mut self, node: Node<'_, '_>) {
        self.replace(node, "");
    }

    /// Replaces the text of this element, which must not have attributes.
    pub(super) fn set_text(&mut self, node: Node<'_, '_>, text: &str) {
        self.replace(node, leaf(node.tag_name().name(), text));
    }

    /// Appends `xml` after the last child of this element.
    pub(super) fn append(&mut self, node: Node<'_, '_>, xml: &str) {
        let range = node.range();
        let outer = &self.source[range.clone()];
        match outer.rfind("</") {
            Some(close) if !outer.ends_with("/>") => {
                let at = range.start + close;
                self.cuts.push((at..at, xml.to_owned()));
            }
            // An empty element such as `<Tags/>`.
            _ => self.replace(node, wrap(node.tag_name().name(), xml)),
        }
    }

    /// Applies all edits. Edits that overlap an earlier one in the text are dropped.
    #[must_use]
    pub(super) fn finish(mut self) -> String {
        if self.cuts.is_empty() {
            return self.source.to_owned();
        }
        self.cuts.sort_by_key(|(range, _)| (range.start, range.end));
        let mut out = String::with_capacity(self.source.len() + 256);
        let mut done = 0;
        for (range, text) in self.cuts {
            if range.start < done {
                continue;
            }
            out.push_str(&self.source[done..range.start]);
            out.push_str(&text);
            done = range.end;
        }
        out.push_str(&self.source[done..]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = r#"<R xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Users><member><UserName>a</UserName></member><member><UserName>b &amp; c</UserName></member></Users><Tags/></R>"#;

    #[test]
    fn escaped_text_round_trips() {
        let text = "a<b>&\"'\r\n\u{e9}";
        let xml = leaf("T", text);
        assert_eq!(text_in(&xml, "T").as_deref(), Some(text));
    }

    #[test]
    fn reading_ignores_namespaces_and_unescapes() {
        assert_eq!(texts_in(USERS, "UserName"), ["a", "b & c"]);
        assert_eq!(text_in(USERS, "Absent"), None);
        assert_eq!(text_in("<!doctype html><p>not xml", "p"), None);
    }

    #[test]
    fn edits_keep_all_other_text() {
        let document = Document::parse(USERS).unwrap();
        let mut edits = Edits::new(USERS);
        let first = find(&document, "member").unwrap();
        edits.append(first, "<X/>");
        edits.append(find(&document, "Tags").unwrap(), "<member/>");
        assert_eq!(
            edits.finish(),
            USERS
                .replace("<UserName>a</UserName>", "<UserName>a</UserName><X/>")
                .replace("<Tags/>", "<Tags><member/></Tags>")
        );
    }

    #[test]
    fn edit_inside_a_removed_element_is_dropped() {
        let document = Document::parse(USERS).unwrap();
        let mut edits = Edits::new(USERS);
        edits.set_text(find(&document, "UserName").unwrap(), "z");
        edits.remove(find(&document, "Users").unwrap());
        assert_eq!(edits.finish(), r#"<R xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Tags/></R>"#);
    }
}
