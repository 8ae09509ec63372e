// The two things that every view does with the document: find an element, and make one.

export const $ = (id) => document.getElementById(id);

export function make(tag, content = "", attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = content;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
