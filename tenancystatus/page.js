
"use strict";
// The page asks for itself again, and takes over what has changed. Elements stay
// the same where they can, so that scroll, focus, a selection and what is open
// stay as they are.
(() => {
	const main = document.getElementById("status");
	const live = document.getElementById("live");
	const lost = document.getElementById("lost");
	const pause = document.getElementById("pause");
	const every = Math.max(100, Number(main.dataset.every) || 2000);
	const patience = 10000;
	let timer = 0;
	let request = null;
	let paused = false;

	function say(state, text) {
		document.documentElement.dataset.state = state;
		if (live.textContent !== text) live.textContent = text;
	}

	// sameKind tells whether a can become b.
	function sameKind(a, b) {
		return a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.id || "") === (b.id || "");
	}

	function become(a, b) {
		if (a.nodeType !== Node.ELEMENT_NODE) {
			if (a.nodeValue !== b.nodeValue) a.nodeValue = b.nodeValue;
			return;
		}
		for (const attribute of Array.from(a.attributes)) {
			if (!b.hasAttribute(attribute.name) && attribute.name !== "open") a.removeAttribute(attribute.name);
		}
		for (const attribute of Array.from(b.attributes)) {
			if (a.getAttribute(attribute.name) !== attribute.value) a.setAttribute(attribute.name, attribute.value);
		}
		const old = Array.from(a.childNodes);
		const young = Array.from(b.childNodes);
		young.forEach((child, i) => {
			if (i >= old.length) a.append(document.adoptNode(child));
			else if (sameKind(old[i], child)) become(old[i], child);
			else old[i].replaceWith(document.adoptNode(child));
		});
		old.slice(young.length).forEach((child) => child.remove());
	}

	function show(page, figures) {
		become(main, figures);
		document.title = page.title;
		lost.hidden = true;
		lost.textContent = "";
		say("live", "Live, every " + (every % 1000 === 0 ? every / 1000 + " s" : every + " ms"));
	}

	function fail(why) {
		const text = "Connection lost, last update " + document.getElementById("as-of").textContent + " UTC. " + why + " Trying again.";
		say("lost", "Not live");
		if (!document.title.startsWith("Not live: ")) document.title = "Not live: " + document.title;
		if (lost.textContent !== text) lost.textContent = text;
		lost.hidden = false;
	}

	function update() {
		clearTimeout(timer);
		if (request) return;
		// A request of this kind brings a document: no string becomes markup.
		const asked = request = new XMLHttpRequest();
		asked.responseType = "document";
		asked.timeout = patience;
		asked.onload = () => {
			const figures = asked.status === 200 && asked.response && asked.response.getElementById("status");
			if (figures) show(asked.response, figures);
			else if (asked.status === 200) fail("The answer is another page: reload to sign in again.");
			else fail("The server's answer is status " + asked.status + ".");
		};
		asked.onerror = () => fail("The server does not answer.");
		asked.ontimeout = () => fail("The server takes longer than " + patience / 1000 + " s to answer.");
		asked.onloadend = () => {
			request = null;
			timer = setTimeout(update, every);
		};
		asked.open("GET", location.href.split("#")[0]);
		asked.setRequestHeader("Accept", "text/html");
		asked.send();
	}

	// hold asks for nothing more until update is called.
	function hold() {
		clearTimeout(timer);
		if (request) {
			request.onloadend = null;
			request.abort();
			request = null;
		}
		if (document.documentElement.dataset.state !== "lost") say("still", "Paused");
	}

	pause.addEventListener("click", () => {
		paused = !paused;
		pause.textContent = paused ? "Resume" : "Pause";
		if (paused) hold();
		else update();
	});
	document.addEventListener("visibilitychange", () => {
		if (document.hidden) hold();
		else if (!paused) update();
	});
	addEventListener("pageshow", (event) => {
		if (event.persisted && !paused) update();
	});

	pause.hidden = false;
	if (document.hidden) say("still", "Paused");
	else update();
})();
