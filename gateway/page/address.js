// Addresses of the page: `#chat=ID` shows a chat, `#stream=ID` one answer. With `&ticket=…` the latter is a link for
// others, which needs no key. Browsers send no fragment to a server, so no log has the ticket of such a link.

const fields = () => new URLSearchParams(location.hash.slice(1));
const withFields = (values) => `${location.origin}/#${new URLSearchParams(values)}`;

/** {chat, stream, ticket}; each may be null. */
export const readAddress = () => ({
  chat: fields().get("chat"),
  stream: fields().get("stream"),
  ticket: fields().get("ticket"),
});

export const addressOfChat = (chat) => withFields({ chat });

/** The page's address of a stream, from a URL of the gateway, which may have a ticket. */
export function addressOfStream(streamUrl) {
  const { pathname, searchParams } = new URL(streamUrl, location.origin);
  const ticket = searchParams.get("ticket");
  return withFields({ stream: pathname.split("/").at(-1), ...(ticket && { ticket }) });
}

/** The gateway's URL of a stream. */
export function streamUrlOf({ stream, ticket }) {
  const url = `/chat/stream/${encodeURIComponent(stream)}`;
  return ticket ? `${url}?${new URLSearchParams({ ticket })}` : url;
}

/** Shows the address of a chat in the browser; null: that of a new chat. Nothing is loaded. */
export function setAddress(chat) {
  const address = chat === null ? `${location.origin}/` : addressOfChat(chat);
  if (location.href !== address) history.pushState(null, "", address);
}

/** Calls `changed` after Back, Forward, a click on a link, and an edit of the address. */
export function watchAddress(changed) {
  window.addEventListener("popstate", changed);
}
