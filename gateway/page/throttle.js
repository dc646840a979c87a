// Throttled drawing: at most once a frame and, if drawing is slow, for at most a fifth of the time.

export class Throttle {
  constructor(draw, onDrawn) {
    this.draw = draw;
    this.onDrawn = onDrawn;
    this.frame = 0;
    this.notBefore = 0;
  }

  /** Requests a drawing. */
  request() {
    this.frame ||= requestAnimationFrame((now) => {
      this.frame = 0;
      if (now < this.notBefore) return this.request();
      this.draw();
      const took = performance.now() - now;
      this.notBefore = took > 4 ? now + 4 * took : 0;
      this.onDrawn();
    });
  }

  /** Cancels a requested drawing. */
  cancel() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.notBefore = 0;
  }
}
