(() => {
	// rgba reads a computed colour; null is one that this can't read.
	function rgba(text) {
		const m = /^rgba?\(([\d.]+), ([\d.]+), ([\d.]+)(?:, ([\d.]+))?\)$/.exec(text);
		return m && [Number(m[1]), Number(m[2]), Number(m[3]), m[4] === undefined ? 1 : Number(m[4])];
	}
	function over(top, bottom) {
		const a = top[3];
		return [0, 1, 2].map((i) => top[i] * a + bottom[i] * (1 - a)).concat(1);
	}
	function luminance(c) {
		const [r, g, b] = c.slice(0, 3).map((v) => {
			v /= 255;
			return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
		});
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	}
	function contrast(a, b) {
		const [x, y] = [luminance(a), luminance(b)];
		return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
	}
	// behind is the colour that an element's text is on.
	function behind(element) {
		const layers = [];
		for (let e = element; e; e = e.parentElement) {
			const c = rgba(getComputedStyle(e).backgroundColor);
			if (!c) return null;
			layers.push(c);
			if (c[3] === 1) break;
		}
		const dark = matchMedia("(prefers-color-scheme: dark)").matches && /dark/.test(getComputedStyle(document.documentElement).colorScheme);
		return layers.reduceRight((bottom, top) => over(top, bottom), dark ? [18, 18, 18, 1] : [255, 255, 255, 1]);
	}
	function opacity(element) {
		let o = 1;
		for (let e = element; e; e = e.parentElement) o *= Number(getComputedStyle(e).opacity);
		return o;
	}
	function seen(element) {
		if (!element.checkVisibility({visibilityProperty: true})) return false;
		for (let e = element; e; e = e.parentElement) {
			const box = e.getBoundingClientRect();
			const style = getComputedStyle(e);
			if (style.overflow === "hidden" && box.width <= 1 && box.height <= 1) return false; // for screen readers
		}
		const box = element.getBoundingClientRect();
		return box.right > 0 && box.bottom + scrollY > 0; // a skip link is beside the page
	}
	function name(element) {
		return element.nodeName.toLowerCase() + (element.id ? "#" + element.id : "") +
			(element.className && element.className.baseVal === undefined ? "." + element.className : "");
	}

	function lowContrast(least) {
		const low = [];
		function check(element, style, text) {
			const color = rgba(style.color), back = behind(element);
			if (!color || !back) {
				low.push(name(element) + " " + JSON.stringify(text) + ": a colour that can't be read, " + style.color);
				return;
			}
			const c = contrast(over([color[0], color[1], color[2], color[3] * opacity(element)], back), back);
			if (c < least) low.push(name(element) + " " + JSON.stringify(text) + ": " + c.toFixed(2));
		}
		const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
		while (texts.nextNode()) {
			const text = texts.currentNode.data.trim(), element = texts.currentNode.parentElement;
			if (text && element && !element.closest("script, style, noscript, svg") && seen(element)) check(element, getComputedStyle(element), text);
		}
		for (const element of document.body.querySelectorAll("*")) {
			for (const which of ["::before", "::after"]) {
				const style = getComputedStyle(element, which);
				if (style.content.startsWith("\"") && style.content !== "\"\"" && style.display !== "none" && seen(element)) check(element, style, style.content);
			}
		}
		return low;
	}

	function overflow() {
		const root = document.documentElement;
		if (root.scrollWidth <= root.clientWidth && root.scrollWidth <= innerWidth) return [];
		const wide = [];
		for (const element of document.body.querySelectorAll("*")) {
			const inBox = (e) => e && e !== document.body && (/(auto|scroll|hidden|clip)/.test(getComputedStyle(e).overflowX) || inBox(e.parentElement));
			if (element.getBoundingClientRect().right > root.clientWidth + 0.5 && !inBox(element.parentElement)) wide.push(name(element));
		}
		return wide.length ? wide : ["the page is " + root.scrollWidth + " wide, its window " + root.clientWidth];
	}
	return {lowContrast, overflow};
})()
