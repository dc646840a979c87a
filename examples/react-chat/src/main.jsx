import { createRoot } from 'react-dom/client';
import { Chat } from './Chat.jsx';

// A real application keeps the chat's id, and its messages under their ids, in its own storage.
const chatId = (localStorage.chatId ??= crypto.randomUUID());
const messages = JSON.parse(localStorage.messages ?? '[]');

createRoot(document.getElementById('chat')).render(<Chat chatId={chatId} kept={messages} />);
