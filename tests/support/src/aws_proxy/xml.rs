//! The little XML this proxy needs: build an answer, read one, and edit one in place.
//!
//! Answers are edited by byte range instead of being parsed into a tree and printed again, so whatever the
//! emulator says about things we do not know passes through untouched.

use std::ops::Range;

use roxmltree::{Document, Node};

/// Text as it may stand between two tags.
#[must_use]
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // A bare CR would come back as LF: XML normalises line ends.
            '\r' => out.push_str("&#xD;"),
            _ => out.push(c),
        }
    }
    out
}

/// `<name>value</name>`, the value escaped.
#[must_use]
pub(super) fn leaf(name: &str, value: &str) -> String {
    format!("<{name}>{}</{name}>", escape(value))
}

/// `<name>inner</name>`, where `inner` is XML already.
#[must_use]
pub(super) fn wrap(name: &str, inner: &str) -> String {
    format!("<{name}>{inner}</{name}>")
}

/// The first element of that name, at any depth; namespaces are ignored.
#[must_use]
pub(super) fn find<'a, 'i>(document: &'a Document<'i>, name: &str) -> Option<Node<'a, 'i>> {
    document.descendants().find(|node| node.is_element() && node.tag_name().name() == name)
}

/// The first direct child element of that name.
#[must_use]
pub(super) fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|node| node.is_element() && node.tag_name().name() == name)
}

/// The text of the direct child of that name.
#[must_use]
pub(super) fn child_text<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    child(node, name).map(|node| node.text().unwrap_or(""))
}

/// The `member` children of a list element.
pub(super) fn members<'a, 'i>(list: Node<'a, 'i>) -> impl Iterator<Item = Node<'a, 'i>> {
    list.children().filter(|node| node.is_element() && node.tag_name().name() == "member")
}

/// The text of the first element of that name in an answer, if the answer is XML and has one.
#[must_use]
pub(super) fn text_in(body: &str, name: &str) -> Option<String> {
    let document = Document::parse(body).ok()?;
    find(&document, name).map(|node| node.text().unwrap_or("").to_owned())
}

/// The text of every element of that name in an answer.
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

/// Edits of one XML text, collected while its document is being read and carried out together.
#[derive(Debug)]
pub(super) struct Edits<'s> {
    source: &'s str,
    cuts: Vec<(Range<usize>, String)>,
}

impl<'s> Edits<'s> {
    /// No edit yet of this text.
    #[must_use]
    pub(super) fn of(source: &'s str) -> Self {
        Self { source, cuts: Vec::new() }
    }

    /// Puts `xml` where this element is.
    pub(super) fn replace(&mut self, node: Node<'_, '_>, xml: impl Into<String>) {
        self.cuts.push((node.range(), xml.into()));
    }

    /// Takes this element out.
    pub(super) fn remove(&mut self, node: Node<'_, '_>) {
        self.replace(node, "");
    }

    /// Gives an element without attributes another text.
    pub(super) fn set_text(&mut self, node: Node<'_, '_>, text: &str) {
        self.replace(node, leaf(node.tag_name().name(), text));
    }

    /// Puts `xml` behind the last child of this element.
    pub(super) fn append(&mut self, node: Node<'_, '_>, xml: &str) {
        let range = node.range();
        let outer = &self.source[range.clone()];
        match outer.rfind("</") {
            Some(close) if !outer.ends_with("/>") => {
                let at = range.start + close;
                self.cuts.push((at..at, xml.to_owned()));
            }
            // `<Tags/>` has no inside yet.
            _ => self.replace(node, wrap(node.tag_name().name(), xml)),
        }
    }

    /// The text with every edit done. Edits that overlap an earlier one in the text are dropped.
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
    fn escaping_survives_a_parser() {
        let text = "a<b>&\"'\r\n\u{e9}";
        let xml = leaf("T", text);
        assert_eq!(text_in(&xml, "T").as_deref(), Some(text));
    }

    #[test]
    fn reading_ignores_the_namespace_and_decodes() {
        assert_eq!(texts_in(USERS, "UserName"), ["a", "b & c"]);
        assert_eq!(text_in(USERS, "Absent"), None);
        assert_eq!(text_in("<!doctype html><p>not xml", "p"), None);
    }

    #[test]
    fn edits_leave_the_rest_of_the_text_alone() {
        let document = Document::parse(USERS).unwrap();
        let mut edits = Edits::of(USERS);
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
    fn an_edit_inside_a_removed_element_is_dropped() {
        let document = Document::parse(USERS).unwrap();
        let mut edits = Edits::of(USERS);
        edits.set_text(find(&document, "UserName").unwrap(), "z");
        edits.remove(find(&document, "Users").unwrap());
        assert_eq!(edits.finish(), r#"<R xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Tags/></R>"#);
    }
}
